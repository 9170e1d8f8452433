"""Run a decoder without some of its layers by running only what differs: shared prefixes once, suffixes together.

One forward pass of the model itself is recorded: the state before every layer, how each layer was called, and the
final norm. A decoder without layer l computes the same as the whole one up to l, so its run starts from the recorded
state there; and two candidates that go without the same layers so far share what comes next. For single layers this
halves the work of a full evaluation each, for all blocks too. Candidates that are due at the same layer run it in one
batch. Of the last layer only the positions that are asked for leave, so its MLP is run on these alone.

What is computed is what the pruned model computes, if a decoder is what it mostly is: layers one after the other, each
called with the same arguments whatever was removed before it. `record` makes sure of that and raises `NotReplayable`
where it is not so (state handed on beside the residual stream, something done between layers, a mutable argument); then
the caller has to remove layers for real.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shoal.decoder.states import decoder_arguments, first_of, last_states, layer_hooks, state_in
from shoal.decoder.sublayers import Sublayers, sublayers_of
from shoal.errors import ModelError
from shoal.terms import Candidate

if TYPE_CHECKING:
    from shoal.decoder.loss_targets import Targets
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part

TOKENS_A_CALL = {"cpu": 4096, "cuda": 65536}
"""Candidates run a layer together until they have this many positions: more gains nothing, and costs memory."""
LIVE_BYTES = 2**31
"""States of candidates that may be alive at a time."""
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a layer was called with beside the state: arguments, and those by name."""


def _last_sublayers(loaded: LoadedModel) -> Sublayers | None:
    """The proved parts of the last layer; None if it is not known to have an MLP."""
    try:
        return sublayers_of(loaded.model, loaded.family)[-1]
    except ModelError:
        return None


class NotReplayable(Exception):
    """The decoder does more than run its layers one after the other; the message says what."""


@dataclass
class Recording:
    """One forward pass of a whole decoder over a batch of B clips and T positions."""

    states: list[Tensor]
    """L+1 tensors (B, T, d): the state before every layer, and after the last one."""
    calls: list[Call]
    """What each layer was called with beside the state."""
    by_name: list[bool]
    """Whether a layer gets its state as `hidden_states=`."""
    norm: nn.Module | None
    """What comes after the last layer; None if nothing does."""
    last: Tensor
    """(B, T, d): the state after the norm."""

    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.calls)


@dataclass
class _HookData:
    """What the hooks see of one forward pass: layer → state, output, arguments."""

    states: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    by_name: dict[int, bool] = field(default_factory=dict)
    after: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)


@torch.inference_mode()
def record(loaded: LoadedModel, batch: PreparedBatch) -> Recording:
    """Run the whole decoder over a batch and keep what is needed to replay it.

    Raises:
        NotReplayable: see the module.
    """
    decoder, layers = loaded.decoder, loaded.layers
    hooked = _HookData()
    with _hooks(decoder, layers, hooked):
        output = decoder(**decoder_arguments(decoder, batch), use_cache=False)
    depth = len(layers)
    if sorted(hooked.states) != list(range(depth)) or sorted(hooked.outputs) != list(range(depth)):
        raise NotReplayable("not every layer is run once")
    _check_chain(hooked, depth)
    last = last_states(output)
    states = [hooked.states[layer] for layer in range(depth)] + [hooked.outputs[depth - 1]]
    calls = [hooked.calls[layer] for layer in range(depth)]
    for args, kwargs in calls:
        _check_arguments((*args, *kwargs.values()))
    by_name = [hooked.by_name[layer] for layer in range(depth)]
    return Recording(states, calls, by_name, _norm(hooked, states[-1], last), last)


def _check_chain(hooked: _HookData, depth: int) -> None:
    for layer in range(1, depth):
        before, after = hooked.outputs[layer - 1], hooked.states[layer]
        if before is not after and not torch.equal(before, after):
            raise NotReplayable(f"the state changes between layers {layer - 1} and {layer}")
    if hooked.states[0].dim() != 3:
        raise NotReplayable("its layers pass on more than one residual stream")


def _check_arguments(values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, tuple):
            _check_arguments(value)
        elif not (value is None or isinstance(value, Tensor | bool | int | float | str)):
            raise NotReplayable(f"its layers are handed a {type(value).__name__}, which may remember other runs")


def _norm(hooked: _HookData, before: Tensor, last: Tensor) -> nn.Module | None:
    """The one module between the last layer and what the decoder answers."""
    if last is before or torch.equal(last, before):
        return None
    for module, state, output in hooked.after:
        if state is before and (output is last or torch.equal(output, last)):
            return module
    raise NotReplayable("what it does after its last layer is not one norm")


def _hooks(decoder: nn.Module, layers: nn.ModuleList, hooked: _HookData) -> AbstractContextManager[None]:
    def before(layer: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        hooked.by_name[layer], hooked.states[layer] = not args, state_in(args, kwargs)
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        hooked.calls[layer] = (args[1:], rest)

    def after(layer: int, _: nn.Module, __: Any, output: Any) -> None:
        hooked.outputs[layer] = first_of(output)

    def beside(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            hooked.after.append((module, args[0], output))

    others = (child for child in decoder.children() if child is not layers and not isinstance(child, nn.ModuleList))
    return layer_hooks(layers, before, after, [child.register_forward_hook(beside) for child in others])


def call_layer(layer: nn.Module, state: Tensor, call: Call, *, by_name: bool) -> Tensor:
    """The state (B, T, d) after a layer that is called as it was recorded."""
    args, kwargs = call
    return first_of(layer(*args, hidden_states=state, **kwargs) if by_name else layer(state, *args, **kwargs))


class Replayer:
    """Replays a recording without layers.

    Args:
        loaded: the model that was recorded.
        recording: from `record`.
        part: what of the layers goes.
        only: where the final state is asked for; anything elsewhere may be wrong then.
    """

    def __init__(
        self, loaded: LoadedModel, recording: Recording, *, part: Part = "layer", only: Targets | None = None
    ) -> None:
        self._loaded, self._layers, self._tape, self._part = loaded, loaded.layers, recording, part
        self._only, self._last = only, _last_sublayers(loaded) if only is not None else None
        batch, length, width = recording.states[0].shape
        limit = TOKENS_A_CALL.get(loaded.device.type, TOKENS_A_CALL["cpu"])
        self._together = max(1, limit // (batch * length))
        self._group = max(1, LIVE_BYTES // (batch * length * width * recording.states[0].element_size() * 2))
        self._repeated: dict[tuple[int, int], Tensor] = {}
        self.evaluations = 0
        """Layers run so far, times clips."""

    @torch.inference_mode()
    def final_states(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Tensor]]:
        """(index in `candidates`, state after the last layer and before the norm (B, T, d)), in any order."""
        order = sorted(range(len(candidates)), key=lambda index: candidates[index])
        for first in range(0, len(order), self._group):
            group = order[first : first + self._group]
            ends = self._walk([candidates[index] for index in group])
            for index in group:
                yield index, ends[candidates[index]]

    def _walk(self, candidates: Sequence[Candidate]) -> dict[Candidate, Tensor]:
        """Layer by layer; a state is known by the layers it went without so far."""
        start = min((min(candidate) for candidate in candidates if candidate), default=self._tape.depth)
        alive: dict[Candidate, Tensor] = {}
        for layer in range(start, self._tape.depth):
            # A candidate that has lost nothing yet is where the recording is.
            alive[()] = self._tape.states[layer]
            skip, run = _due(layer, candidates)
            alive = self._without(layer, skip, alive) | self._run(layer, run, alive)
        alive[()] = self._tape.states[-1]
        return alive

    def _without(
        self, layer: int, prefixes: list[Candidate], alive: dict[Candidate, Tensor]
    ) -> dict[Candidate, Tensor]:
        if self._part == "layer":
            return {(*prefix, layer): alive[prefix] for prefix in prefixes}
        from shoal.pruning.sublayers import without_part

        with without_part(self._loaded.model, [layer], self._part, family=self._loaded.family):
            # A stand-in for the MLP computes nothing anyway, and is not the module that was proved.
            states = self._run(layer, prefixes, alive, shorten=self._part != "mlp")
        return {(*prefix, layer): state for prefix, state in states.items()}

    def _run(
        self, layer: int, prefixes: list[Candidate], alive: dict[Candidate, Tensor], *, shorten: bool = True
    ) -> dict[Candidate, Tensor]:
        ran: dict[Candidate, Tensor] = {}
        for first in range(0, len(prefixes), self._together):
            part = prefixes[first : first + self._together]
            states = [alive[prefix] for prefix in part]
            with self._shortened(layer, len(part)) if shorten else nullcontext():
                output = self._call(layer, states[0] if len(states) == 1 else torch.cat(states), len(part))
            ran |= dict(zip(part, output.chunk(len(part)), strict=True))
            self.evaluations += len(part) * len(states[0])
        return ran

    def _shortened(self, layer: int, times: int) -> AbstractContextManager[None]:
        if layer < self._tape.depth - 1 or self._only is None or self._last is None:
            return nullcontext()
        clips, length = self._tape.states[0].shape[:2]
        return _only_at(self._last, self._only.flat_positions(clips, length, times))

    def _call(self, layer: int, state: Tensor, times: int) -> Tensor:
        args, kwargs = self._tape.calls[layer]
        rows = len(state) // times
        more = tuple(self._for(value, rows, times) for value in args)
        named = {name: self._for(value, rows, times) for name, value in kwargs.items()}
        return call_layer(self._layers[layer], state, (more, named), by_name=self._tape.by_name[layer])

    def _for(self, value: Any, rows: int, times: int) -> Any:
        """An argument for `rows` clips, for `times` as many; what is the same for all clips stays."""
        if isinstance(value, tuple):
            return tuple(self._for(item, rows, times) for item in value)
        if not isinstance(value, Tensor) or times == 1 or rows == 1 or not value.dim() or len(value) != rows:
            return value
        key = (id(value), times)
        if key not in self._repeated:
            self._repeated[key] = value.repeat(times, *[1] * (value.dim() - 1))
        return self._repeated[key]


def _due(layer: int, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Which prefixes are gone on with without `layer`, and which with it (the recorded run is not run again)."""
    skip, run = set(), set()
    for candidate in candidates:
        prefix = tuple(gone for gone in candidate if gone < layer)
        if layer in candidate:
            skip.add(prefix)
        elif prefix:
            run.add(prefix)
    return sorted(skip), sorted(run)


@contextmanager
def _only_at(sublayers: Sublayers, positions: Tensor) -> Iterator[None]:
    """Run an MLP at some positions only; at the others it answers zeros, which nobody reads.

    An MLP works position by position, so what it answers at one does not depend on the others.

    Args:
        sublayers: where the MLP is.
        positions: (N,) int64, into all positions of the batch, row after row.
    """
    first, last = sublayers.work["mlp"][0], sublayers.work["mlp"][-1]
    shapes: list[torch.Size] = []

    def gather(_: nn.Module, args: tuple[Any, ...]) -> Any:
        states, *rest = args
        shapes.append(states.shape[:-1])
        some = states.reshape(-1, states.shape[-1])[positions]
        # OPT's MLP sees (positions, d); others (rows, positions, d).
        return (some if states.dim() == 2 else some[None], *rest)

    def scatter(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        some, shape = first_of(output), shapes.pop()
        whole = some.new_zeros((shape.numel(), some.shape[-1]))
        whole[positions] = some.reshape(len(positions), -1)
        whole = whole.reshape(*shape, -1)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    handles = [first.register_forward_pre_hook(gather), last.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
