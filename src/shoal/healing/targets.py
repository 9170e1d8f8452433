"""The heal targets: what of a pruned model is trained, or computed.

A new one is a function and a line in `TARGETS`. Importing it is quick, for help names targets too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ModelError, PlanError
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.trained_parts import TrainedParts, layer_path, mlp_layers, projector_paths

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan

LAST = 3
"""Layers that the target `head` trains beside the head."""


@dataclass(frozen=True, slots=True)
class Target:
    """One way to heal."""

    name: str
    title: str
    """What it trains, in a few words."""
    parts: Callable[[LoadedModel, Sequence[Cut]], TrainedParts]
    """What is trained in the pruned model, whose layers are missing at these cuts; see `choose`."""
    trained: bool = True
    """Whether gradients are taken; else the weights are computed."""
    adapts: bool = True
    """Whether the result can be saved as adapters of the pruned checkpoint."""
    needs_cuts: bool = False
    """Whether it must be known where layers are missing."""
    hidden_only: bool = False
    """Whether it learns from hidden states alone, unless it is told otherwise."""
    puts_back: bool = False
    """Whether the first layer of each block is put back, to be trained in place of the block."""

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """What is trained in the pruned model.

        Args:
            loaded: the pruned model.
            cuts: where its layers are missing.

        Raises:
            ModelError: the model does not have it.
            PlanError: no layer is missing where one must be.
        """
        if self.needs_cuts and not cuts:
            raise PlanError(
                "no layer is missing, so nothing receives another state",
                where=f"--target {self.name}",
                fix="give a folder that shoal prune wrote, or a plan with --plan",
            )
        return self.parts(loaded, cuts)

    def kept(self, plan: Plan) -> Plan:
        """The plan that is carried out: `plan`, or where layers are put back, the plan without these.

        Raises:
            PlanError: a block of one layer: putting it back would undo the plan.
        """
        if not self.puts_back:
            return plan
        cuts = cuts_of(plan)
        if short := [cut.start for cut in cuts if cut.stop - cut.start == 1]:
            raise PlanError(
                f"layer {short[0]} is a block of one, and one layer in its place would be as deep as before",
                where=f"--target {self.name}",
                fix="use it for blocks of two layers or more",
            )
        gone = [layer for cut in cuts for layer in cut.layers[1:]]
        return type(plan).model_validate(plan.model_dump() | {"layers": gone, "distance": None, "importance": None})


def _receiver(loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
    """Low-rank updates of the MLP of the layer behind each cut; where the last layers are missing, of the one before.

    The target of arXiv 2603.05121.
    """
    receivers = (cut.before if cut.receiver is None else cut.receiver for cut in cuts)
    layers = dict.fromkeys(layer for layer in receivers if layer is not None)
    return TrainedParts(lora=tuple(name for layer in layers for name in mlp_layers(loaded, layer)))


def _projector(loaded: LoadedModel, _: Sequence[Cut]) -> TrainedParts:
    """All weights of the projector; the decoder stays as the plan left it."""
    return TrainedParts(whole=projector_paths(loaded))


def _decoder(loaded: LoadedModel, _: Sequence[Cut]) -> TrainedParts:
    """Low-rank updates of all linear layers in the decoder's layers; experts that share one tensor stay as they are."""
    from shoal.models.lora import linear_layers

    layers = linear_layers(loaded.model, [loaded.family.layers_path(loaded.model)])
    if not layers:
        raise ModelError(
            "its decoder has no linear layers that take a low-rank update",
            where=type(loaded.model).__name__,
            fix="heal it with --target projector or head",
        )
    return TrainedParts(lora=layers)


def _joint(loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
    """`receiver` and `projector` (arXiv 2603.05121: far better than the decoder alone)."""
    return _receiver(loaded, cuts) + _projector(loaded, cuts)


def _joint_decoder(loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
    """`decoder` and `projector`."""
    return _decoder(loaded, cuts) + _projector(loaded, cuts)


def _head(loaded: LoadedModel, _: Sequence[Cut]) -> TrainedParts:
    """All weights of the head and the last layers (Reassessing Layer Pruning, arXiv 2411.15558).

    A head that shares its weights with the input embeddings trains them too.
    """
    head = loaded.family.head(loaded.model)
    names = [name for name, module in loaded.model.named_modules() if module is head and name]
    if head is None or not names:
        raise ModelError("it has no head", where=type(loaded.model).__name__, fix="heal another target")
    depth = len(loaded.layers)
    last = [layer_path(loaded, layer) for layer in range(max(0, depth - LAST), depth)]
    return TrainedParts(whole=(names[0], *last))


def _replace(loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
    """All weights of the layer before each cut, which is the block's first, put back (arXiv 2403.19135).

    It is of the decoder's own class, so the checkpoint stays one that the stock class loads; it has one layer more
    than the plan alone would leave.
    """
    layers = [cut.before for cut in cuts if cut.before is not None]
    return TrainedParts(whole=tuple(layer_path(loaded, layer) for layer in layers))


def _computed(_: LoadedModel, __: Sequence[Cut]) -> TrainedParts:
    """Nothing: down projections are computed, see `shoal.healing.linear` and `shoal.healing.chain`."""
    return TrainedParts()


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("receiver", "LoRA on the MLP behind the cut", _receiver, needs_cuts=True),
        Target("projector", "the projector", _projector),
        Target("decoder", "LoRA on all decoder layers", _decoder),
        Target("joint", "LoRA on the MLP behind the cut, and the projector", _joint, needs_cuts=True),
        Target("joint-decoder", "LoRA on all decoder layers, and the projector", _joint_decoder),
        Target("head", f"LM head and last {LAST} layers", _head, adapts=False),
        Target(
            "replace",
            "one layer in place of each block",
            _replace,
            adapts=False,
            needs_cuts=True,
            hidden_only=True,
            puts_back=True,
        ),
        Target(
            "linear",
            "the down projection before the cut, by least squares",
            _computed,
            trained=False,
            adapts=False,
            needs_cuts=True,
        ),
        Target(
            "chain",
            "the down projections from the cut to the last layer, by least squares",
            _computed,
            trained=False,
            adapts=False,
            needs_cuts=True,
        ),
    )
}
