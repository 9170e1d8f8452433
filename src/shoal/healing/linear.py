"""The heal target `linear`: what the missing layers did, folded into the layer before them by least squares.

A cut [s, e) removes the layers that turn the state x_s into x_e. The layer before it ends with x_s = y + c·p, where y
is the residual stream after its attention, p = W h + b what its MLP's down projection gives, and c the layer's factor
(1, or Granite's residual multiplier). New weights of that down projection make y + c·p close to x_e, in closed form:

- `map`: T W and T b, where T (d, d) minimises Σ w‖y + T c p - x_e‖² + λ‖T - I‖² (ReplaceMe, arXiv 2505.02819);
- `weights`: W' and b' that minimise Σ w‖y + c (W' h + b') - x_e‖² + λ‖W' - W‖² + λ‖b' - b‖², which `map` is a case of.

Both are one ridge regression of r = x_e - x_s: T = I + R with features c p, or (W', b') = (W, b) + R with c (h, 1). So
shapes stay, nothing is trained, and with an infinite ridge the model is the plainly pruned one. Each cut is fitted with
the unpruned model's own states; one forward pass over the data serves all cuts.

Memory, for each cut: float64 sums of d² numbers for `map` and d_ff² for `weights` (Llama 3.1 8B: 0.13 and 1.6 GB),
twice more while it is solved; and one batch of states (N, L+1, d) as in an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from shoal.decoder.states import decoder_arguments, recording
from shoal.decoder.sublayers import Sublayers, exact, find_sublayers, first_of, prove
from shoal.errors import MeasureError, ModelError, UsageError
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.normal_equations import NormalEquations
from shoal.healing.settings import RIDGE, Fit, Weighting
from shoal.pruning.in_memory import kept_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan, Scope

FIX = "heal with another target"
PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What weights are in that are not quantised."""


@dataclass(frozen=True, slots=True)
class LinearFit:
    """How well one cut is bridged, over the positions it was fitted on, before the weights are rounded to their dtype.

    Errors are Σ w‖o - x_e‖² / Σ w‖x_e - mean‖², with o the output of the layer before the cut: 0 is the state that the
    missing layers made, 1 is as good as the weighted mean of those states.
    """

    cut: Cut
    error_before: float
    """Of the plainly pruned model: o = x_s."""
    error_after: float
    positions: int
    """How many were fitted."""
    parameters: int
    """How many numbers of the model changed."""


def fit_linear(
    teacher: LoadedModel,
    plan: Plan,
    batches: Iterable[PreparedBatch],
    *,
    fit: Fit = "weights",
    ridge: float = RIDGE,
    weighting: Weighting = "relative",
    scope: Scope = "all",
) -> tuple[dict[str, Tensor], list[LinearFit]]:
    """Bridge every cut of a plan by new weights of the down projection before it.

    Args:
        teacher: the unpruned model.
        plan: what is missing from the pruned one.
        batches: clips, padded on either side; padding never counts.
        fit: what is free, see the module.
        ridge: pulls towards the plainly pruned model; relative to the mean square of the features.
        weighting: `relative` weighs a position by 1/‖x_e‖², so that the first one, whose state is hundreds of times
            longer in many models (the attention sink), counts like the others; with `none` it decides the fit.
        scope: the positions that count.

    Returns:
        New tensors by their names in the pruned model, in the dtype of the old ones; and a report for each cut.

    Raises:
        PlanError: the plan is for another depth, or removes only a part of its layers.
        ModelError: a cut has no layer before it, or one whose MLP does not end with a plain linear layer.
        UsageError: the ridge is not above 0, or a word is unknown.
        MeasureError: a state is not finite, no position is in the scope, or the fit has no finite solution.
    """
    fits = LinearFits(teacher, plan, fit=fit, weighting=weighting, scope=scope)
    for batch in batches:
        fits.add(batch)
    return fits.solve(ridge)


def apply_linear(pruned: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy what `fit_linear` found into a pruned model, keeping its dtype and device; on an error nothing is changed.

    Layers are not copied by pruning in memory, so a teacher that shares them is changed too.

    Raises:
        ModelError: a name or a shape does not fit.
    """
    found = {name: _parameter(pruned, name, tensor.shape) for name, tensor in tensors.items()}
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(tensors[name])


def _parameter(model: PreTrainedModel, name: str, shape: torch.Size) -> nn.Parameter:
    fix = "use the plan that the tensors were fitted for"
    try:
        parameter = model.get_parameter(name)
    except AttributeError:
        raise ModelError(f"it has no parameter {name}", where=type(model).__name__, fix=fix) from None
    if parameter.shape != shape:
        raise ModelError(
            f"{name} has shape {tuple(parameter.shape)}, and the new one {tuple(shape)}",
            where=type(model).__name__,
            fix=fix,
        )
    return parameter


@dataclass(slots=True)
class _Bridge:
    """One cut, the down projection before it, and the sums of its fit."""

    cut: Cut
    last: int
    """The layer before the cut, unpruned numbering."""
    layer: nn.Module
    parts: Sublayers
    down: nn.Linear | Conv1D | None = None
    """Known once it is proved."""
    factor: float = 1.0
    """c."""
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    """Features c p or c (h, 1) of the batch that runs, (N, k)."""
    sums: NormalEquations = field(default_factory=NormalEquations)
    moments: list[Tensor | float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Σ w, Σ w x_e (d,) and Σ w‖x_e‖²."""

    def report(self, solution: Tensor, changed: int) -> LinearFit:
        """How well `solution` (d, k) does, which changed so many parameters.

        Raises:
            MeasureError: the states to be met do not differ, so there is nothing to compare an error with.
        """
        weight, total, square = (torch.as_tensor(each) for each in self.moments)
        spread = float(square - total.square().sum() / weight)
        if self.sums.positions < 2 or not spread > 0:
            raise MeasureError("the state after the cut is the same at all positions; fit with more clips")
        before, after = self.sums.error() / spread, self.sums.error(solution) / spread
        return LinearFit(self.cut, before, after, self.sums.positions, changed)


class LinearFits:
    """Adds up what one batch after the other gives, and solves it for any ridge; arguments as `fit_linear`."""

    def __init__(
        self,
        teacher: LoadedModel,
        plan: Plan,
        *,
        fit: Fit = "weights",
        weighting: Weighting = "relative",
        scope: Scope = "all",
    ) -> None:
        if fit not in ("map", "weights") or weighting not in ("none", "relative"):
            raise UsageError(
                f"unknown fit {fit!r} or weighting {weighting!r}", fix="use map or weights, none or relative"
            )
        kept_layers(plan, len(teacher.layers))
        self._teacher, self._fit, self._weighting, self._scope = teacher, fit, weighting, scope
        self._bridges = [_bridge(teacher, cut) for cut in cuts_of(plan)]

    def add(self, batch: PreparedBatch) -> None:
        """Add the positions of one more batch; raises as `fit_linear`."""
        # What a batch holds may have been made in inference mode, whose tensors no one could train afterwards.
        with torch.inference_mode(False), torch.no_grad():
            unproved = [bridge for bridge in self._bridges if bridge.down is None]
            if unproved:
                _prove(unproved, batch.attention_mask.bool(), lambda: self._run(batch))
            mask = batch.scope(self._scope)
            with recording(self._teacher.layers, self._teacher.family.state) as buffer, self._listening(mask):
                buffer.start(mask)
                self._run(batch)
                states = buffer.take()
            names = [batch.ids[row] for row in mask.nonzero()[:, 0].tolist()]
            for bridge in self._bridges:
                self._put(bridge, states[:, bridge.cut.start], states[:, bridge.cut.stop], names)

    def solve(self, ridge: float = RIDGE) -> tuple[dict[str, Tensor], list[LinearFit]]:
        """The new tensors and the reports, as `fit_linear`; the sums stay, so it can be solved again."""
        tensors: dict[str, Tensor] = {}
        report: list[LinearFit] = []
        with torch.inference_mode(False), torch.no_grad():
            for bridge in self._bridges:
                solution = bridge.sums.solve(ridge)
                found = self._folded(bridge, solution)
                tensors |= found
                report.append(bridge.report(solution, sum(each.numel() for each in found.values())))
        return tensors, report

    def _run(self, batch: PreparedBatch) -> None:
        decoder = self._teacher.decoder
        decoder(**decoder_arguments(decoder, batch), use_cache=False)

    @contextmanager
    def _listening(self, mask: Tensor) -> Iterator[None]:
        """Fill the bridges' `rows` with the positions in `mask` (B, T) of what runs inside."""
        with ExitStack() as hooks:
            for bridge in self._bridges:
                hooks.callback(_proved(bridge).register_forward_hook(self._hook(bridge, mask)).remove)
            yield

    def _hook(self, bridge: _Bridge, mask: Tensor) -> Callable[..., None]:
        def hook(down: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            taken = output if self._fit == "map" else args[0]
            rows = _rows(taken, mask)
            if self._fit == "weights" and down.bias is not None:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            bridge.rows = rows

        return hook

    def _put(self, bridge: _Bridge, start: Tensor, stop: Tensor, names: Sequence[str]) -> None:
        """Add states x_s and x_e (N, d) of one batch to the sums."""
        start, stop, rows = exact(start), exact(stop), exact(bridge.rows)
        bridge.rows = torch.empty(0)
        squares = stop.square().sum(1)
        weights = 1 / squares if self._weighting == "relative" else torch.ones_like(squares)
        finite = torch.isfinite(start).all(1) & torch.isfinite(weights) & torch.isfinite(squares)
        finite &= torch.isfinite(rows).all(1).to(finite.device)
        if not bool(finite.all()):
            clip = names[int((~finite).nonzero()[0])]
            raise MeasureError(
                f"clip {clip}: a state around layers {bridge.cut.start} to {bridge.cut.stop - 1} is zero or not "
                "finite; try float32, or leave the clip out"
            )
        bridge.sums.add(bridge.factor * rows, stop - start, weights)
        added = (weights.sum(), weights @ stop, weights @ squares)
        bridge.moments = [old + new for old, new in zip(bridge.moments, added, strict=True)]

    def _folded(self, bridge: _Bridge, solution: Tensor) -> dict[str, Tensor]:
        """The new weight, and bias, of the down projection, by name in the pruned model."""
        down = _proved(bridge)
        flip = isinstance(down, Conv1D)  # whose weight is (d_ff, d)
        old = exact(down.weight).to(solution.device)
        old = old.T if flip else old
        width = old.shape[1]
        new = old + (solution @ old if self._fit == "map" else solution[:, :width])
        prefix = f"{self._teacher.family.layers_path(self._teacher.model)}.{bridge.cut.before}"
        inside = next(name for name, module in bridge.layer.named_modules() if module is down)
        found = {f"{prefix}.{inside}.weight": (new.T if flip else new).contiguous().to(down.weight)}
        if down.bias is not None:
            bias = exact(down.bias).to(solution.device)
            moved = solution @ bias if self._fit == "map" else solution[:, width]
            found[f"{prefix}.{inside}.bias"] = (bias + moved).to(down.bias)
        return found


def _bridge(teacher: LoadedModel, cut: Cut) -> _Bridge:
    """The cut with the layer before it, refused if that cannot work."""
    if cut.last is None:
        raise ModelError(
            "no layer stands before the first one, so none can take over what it did",
            where=f"layers {cut.start} to {cut.stop - 1}",
            fix=FIX,
        )
    layer = teacher.layers[cut.last]
    try:
        parts = find_sublayers(layer)
    except ModelError as error:
        raise _unfit(cut.last, layer, error.what) from error
    if len(parts.work["mlp"]) > 1 and not isinstance(parts.mlp, nn.Linear | Conv1D):
        raise _unfit(cut.last, layer, "a norm stands between its MLP and the residual stream")
    if any(name.rpartition(".")[2].endswith("experts") for name, _ in parts.mlp.named_modules()):
        raise _unfit(cut.last, layer, "its MLP is a mixture of experts, which has no one down projection")
    return _Bridge(cut, cut.last, layer, parts)


def _unfit(index: int, layer: nn.Module, why: str) -> ModelError:
    return ModelError(
        f"{why}; so nothing can be folded into it", where=f"layer {index} ({type(layer).__name__})", fix=FIX
    )


def _proved(bridge: _Bridge) -> nn.Linear | Conv1D:
    """The down projection.

    Raises:
        MeasureError: no batch came, by which it is found.
    """
    if bridge.down is None:
        raise MeasureError("there is no position to fit")
    return bridge.down


def _prove(bridges: Sequence[_Bridge], mask: Tensor, run: Callable[[], None]) -> None:
    """Find the bridges' down projections and factors by one forward pass.

    Args:
        bridges: not proved yet.
        mask: (B, T) bool, the real positions of the pass.
        run: the pass.

    Raises:
        ModelError: a layer is not an attention and an MLP, or the MLP's contribution is not what one of its linear
            layers gives, or that one is quantised.
    """
    with _tape(bridges) as tape:
        try:
            prove([bridge.layer for bridge in bridges], run)
        except ModelError as error:
            raise ModelError(error.what, where=error.where, fix=FIX) from error
    for bridge in bridges:
        bridge.factor = _factor(bridge, tape, mask)
        bridge.down = _down(bridge, tape, mask)


@dataclass(slots=True)
class _Tape:
    """Copies of what modules took and gave in one pass; a layer may go on to write into a tensor."""

    taken: dict[nn.Module, Tensor] = field(default_factory=dict)
    given: dict[nn.Module, Tensor] = field(default_factory=dict)


@contextmanager
def _tape(bridges: Sequence[_Bridge]) -> Iterator[_Tape]:
    """Record the bridges' layers, their parts, and the linear layers of their MLPs."""
    tape = _Tape()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tape.taken[module] = (args[0] if args else kwargs["hidden_states"]).clone()

    def after(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        tape.given[module] = first_of(output).clone()

    with ExitStack() as hooks:
        for bridge in bridges:
            hooks.callback(bridge.layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            for module in dict.fromkeys((bridge.layer, *bridge.parts.modules(), *_linears(bridge))):
                hooks.callback(module.register_forward_hook(after).remove)
        yield tape


def _linears(bridge: _Bridge) -> list[nn.Linear | Conv1D]:
    return [module for module in bridge.parts.mlp.modules() if isinstance(module, nn.Linear | Conv1D)]


def _factor(bridge: _Bridge, tape: _Tape, mask: Tensor) -> float:
    """The c of x_s = a·x + c·(attention + MLP), a form that `prove` made sure of; positions count alike."""
    entered, left = tape.taken[bridge.layer], tape.given[bridge.layer]
    added = [tape.given[part] for part in bridge.parts.modules() if part in tape.given]
    x, y, *gave = (exact(_rows(each, mask)) for each in (entered, left, *added))
    sizes = torch.linalg.vector_norm(y, dim=1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    columns = torch.stack([(each / sizes).flatten() for each in (x, sum(gave, torch.zeros_like(x)), y)], 1)
    products = columns.T @ columns
    return float(torch.linalg.solve(products[:2, :2], products[:2, 2])[1])


def _down(bridge: _Bridge, tape: _Tape, mask: Tensor) -> nn.Linear | Conv1D:
    """The linear layer whose output is, to the last bit, what the MLP gives."""
    given = _rows(tape.given[bridge.parts.mlp], mask)
    run = [module for module in _linears(bridge) if module in tape.given]
    found = [m for m in run if tape.given[m].shape[-1] == given.shape[-1]]
    found = [m for m in found if torch.equal(_rows(tape.given[m], mask), given)]
    if not found:
        raise _unfit(bridge.last, bridge.layer, "what its MLP gives is not the output of one linear layer")
    weight = found[-1].weight
    if weight.dtype not in PLAIN or weight.is_meta:
        raise _unfit(bridge.last, bridge.layer, "the weights of its MLP are quantised, or not in memory")
    return found[-1]


def _rows(tensor: Tensor, mask: Tensor) -> Tensor:
    """The positions in `mask` (B, T) of (B, T, k) or (B·T, k): (N, k)."""
    return tensor.reshape(*mask.shape, -1)[mask.to(tensor.device)]
