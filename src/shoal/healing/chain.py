"""The heal target `chain`: the closed form of `linear`, and on through the rest of the stack.

Behind a cut, every layer receives a state that is not quite the one it knows, and what is wrong grows from layer to
layer. So the down projections of the layers that stay are refitted one after the other, from the one before the first
cut to the last: each so that its layer gives the state that the unpruned model has there, from the states that the
pruned model, healed so far, really has. Each is the ridge regression of `shoal.healing.linear`, whose features are the
healed model's own; the first is `linear` itself.

Every batch is recorded once (see `shoal.measurement.replay`). Then two states of each clip go through the stack side by
side, the unpruned model's and the healed one's, layer by layer, so all of it takes about three forward passes of the
layers behind the cut. Memory: those two states of all clips, how their layers were called, and the sums of one layer
(twice d_ff² float64 numbers, twice more while it is solved).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shoal.decoder.states import decoder_arguments
from shoal.errors import ModelError
from shoal.healing.cuts import Cut
from shoal.healing.down_projection import DownProjection, down_projection, positions, prove_projections
from shoal.healing.linear import CutFit, LinearFit, check_words, folded_in
from shoal.healing.settings import RIDGE, Fit, Weighting
from shoal.measurement.replay import Call, NotReplayable, call_layer, record
from shoal.pruning.in_memory import kept_layers

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan, Scope


def fit_chain(
    teacher: LoadedModel,
    plan: Plan,
    batches: Iterable[PreparedBatch],
    *,
    held_out: Iterable[PreparedBatch] = (),
    fit: Fit = "weights",
    ridge: float | None = RIDGE,
    weighting: Weighting = "relative",
    scope: Scope = "all",
) -> tuple[dict[str, Tensor], list[LinearFit]]:
    """Refit the down projections from the layer before the first cut to the last layer, one after the other.

    Layers whose MLP does not end with a plain linear layer of its own stay as they are, but not those before a cut.

    Args, Returns and Raises are those of `fit_linear`, with a report for each layer; and

    Raises:
        ModelError: its layers cannot be run one by one, because more than one state is handed from layer to layer.
    """
    check_words(fit, weighting)
    with torch.inference_mode(False), torch.no_grad():
        steps = _steps(teacher, plan)
        tracks = _tracks(teacher, steps, batches, scope, held_out=False)
        tracks += _tracks(teacher, steps, held_out, scope, held_out=True)
        tensors: dict[str, Tensor] = {}
        report: list[LinearFit] = []
        for step in steps:
            for track in tracks:
                track.taught = _through(teacher, track, track.taught, range(step.layer, step.target))
            if step.projection is None:
                _go_on(teacher, step, tracks)
                continue
            new, done = _fitted(teacher, step, tracks, CutFit(step.cut, step.projection, fit, weighting), ridge)
            tensors |= {f"{step.name}.{step.projection.name}.{kind}": tensor for kind, tensor in new.items()}
            report.append(done)
    return tensors, report


@dataclass(slots=True)
class _Step:
    """A layer that stays, and where it should lead."""

    layer: int
    """Unpruned numbering."""
    target: int
    """The layer that comes next, or the depth: the boundary whose state it should give."""
    name: str
    """Of the layer in the pruned model."""
    projection: DownProjection | None
    """None where the layer stays as it is."""

    @property
    def cut(self) -> Cut:
        """The cut behind it, empty where the next layer comes next."""
        return Cut(self.layer + 1, self.target, None, None)


@dataclass(slots=True)
class _Track:
    """One batch on its way through the layers."""

    names: list[str]
    """Of the clip of each position that counts."""
    mask: Tensor
    """(B, T) bool: the positions that count."""
    calls: list[Call]
    """What each layer is called with beside the state."""
    by_name: list[bool]
    healed: Tensor
    """(B, T, d): the state of the healed model."""
    taught: Tensor
    """(B, T, d): the unpruned model's."""
    held_out: bool


def _steps(teacher: LoadedModel, plan: Plan) -> list[_Step]:
    """From the layer before the first cut on.

    Raises:
        PlanError: the plan is for another depth.
        ModelError: a cut has no layer before it that can be fitted.
    """
    keep = kept_layers(plan, depth := len(teacher.layers))
    path = teacher.family.layers_path(teacher.model)
    steps: list[_Step] = []
    if keep[0] != 0:
        down_projection(teacher, Cut(0, keep[0], None, 0))  # refuses: no layer stands there
    for number, (layer, target) in enumerate(pairwise([*keep, depth])):
        whole = target == layer + 1
        if whole and not steps:
            continue
        try:
            projection = down_projection(teacher, Cut(layer + 1, target, number, None))
        except ModelError:
            if not whole:
                raise
            projection = None
        steps.append(_Step(layer, target, f"{path}.{number}", projection))
    return steps


def _tracks(
    teacher: LoadedModel, steps: Sequence[_Step], batches: Iterable[PreparedBatch], scope: Scope, *, held_out: bool
) -> list[_Track]:
    """Record every batch up to the first step."""
    tracks = []
    for batch in batches:
        _prove(teacher, steps, batch)
        try:
            recording = record(teacher, batch)
        except NotReplayable as error:
            raise ModelError(
                f"its layers cannot be run one by one ({error})",
                where=type(teacher.model).__name__,
                fix="heal with --target linear",
            ) from None
        mask = batch.scope(scope)
        names = [batch.ids[row] for row in mask.nonzero()[:, 0].tolist()]
        state = recording.states[steps[0].layer].clone()
        tracks.append(_Track(names, mask, recording.calls, recording.by_name, state, state, held_out))
    return tracks


def _prove(teacher: LoadedModel, steps: Sequence[_Step], batch: PreparedBatch) -> None:
    """Find the down projections, if that is still to be done."""
    unproved = [step.projection for step in steps if step.projection and step.projection.linear is None]
    if unproved:
        arguments = decoder_arguments(teacher.decoder, batch)
        prove_projections(unproved, batch.attention_mask.bool(), lambda: teacher.decoder(**arguments, use_cache=False))


def _fitted(
    teacher: LoadedModel, step: _Step, tracks: Sequence[_Track], fit: CutFit, ridge: float | None
) -> tuple[dict[str, Tensor], LinearFit]:
    """The new tensors of one layer's down projection; all tracks go on through it."""
    state = teacher.family.state
    for track in tracks:
        stop = fit.listen(track.mask)
        try:
            given = _through(teacher, track, track.healed, [step.layer])
        finally:
            stop()
        start, goal = positions(state(given), track.mask), positions(state(track.taught), track.mask)
        fit.add(start, goal, track.names, held_out=track.held_out)
    solution, chosen = fit.solve(ridge)
    new = fit.folded(solution)
    with folded_in(fit.projection.proved, new):
        _go_on(teacher, step, tracks)
    return new, fit.report(solution, chosen, sum(tensor.numel() for tensor in new.values()))


def _go_on(teacher: LoadedModel, step: _Step, tracks: Sequence[_Track]) -> None:
    for track in tracks:
        track.healed = _through(teacher, track, track.healed, [step.layer])


def _through(teacher: LoadedModel, track: _Track, state: Tensor, layers: Iterable[int]) -> Tensor:
    """The state (B, T, d) after these layers, each called as it was."""
    for index in layers:
        state = call_layer(teacher.layers[index], state, track.calls[index], by_name=track.by_name[index])
    return state
