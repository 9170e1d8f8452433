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
the same for clips that are held out, twice more while it is solved; and one batch of states (N, L+1, d) as in an audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from shoal.decoder.states import decoder_arguments, recording
from shoal.decoder.sublayers import exact
from shoal.errors import MeasureError, ModelError, UsageError
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.down_projection import DownProjection, down_projection, positions, prove_projections
from shoal.healing.normal_equations import NormalEquations
from shoal.healing.settings import RIDGE, RIDGES, Fit, Weighting
from shoal.pruning.in_memory import kept_layers
from shoal.wording import plural

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan, Scope

POSITIONS_PER_UNKNOWN = 3
"""With fewer positions a fit is called underdetermined: with one, it can meet any states whatever."""


@dataclass(frozen=True, slots=True)
class LinearFit:
    """How well one cut is bridged, before the weights are rounded to their dtype.

    Errors are Σ w‖o - x_e‖² / Σ w‖x_e - mean‖², with o the output of the layer before the cut: 0 is the state that the
    missing layers made, 1 is as good as the weighted mean of those states.
    """

    cut: Cut
    error_before: float
    """Of the plainly pruned model, o = x_s, over the positions of the fit."""
    error_after: float
    held_out_before: float | None
    """The same over the positions that were held out; None where there were too few."""
    held_out_after: float | None
    positions: int
    """How many were fitted."""
    held_out_positions: int
    unknowns: int
    """How many numbers of each output are fitted to them."""
    ridge: float
    parameters: int
    """How many numbers of the model changed."""

    @property
    def underdetermined(self) -> bool:
        """Whether the positions are few for so many unknowns, so that the ridge decides more than the clips."""
        return self.positions < POSITIONS_PER_UNKNOWN * self.unknowns

    @property
    def worse(self) -> bool:
        """Whether the plainly pruned model is nearer to the states that were held out."""
        before, after = self.held_out_before, self.held_out_after
        return before is not None and after is not None and after > before

    @property
    def held_out_words(self) -> str:
        """The errors over the positions that were held out."""
        if self.held_out_before is None or self.held_out_after is None:
            return "no position was held out"
        return (
            f"relative error {self.held_out_before:.3f} to {self.held_out_after:.3f} on "
            f"{plural(self.held_out_positions, 'position')} that were held out"
        )

    @property
    def notes(self) -> list[str]:
        """What was reached, and a warning where that cannot be relied on."""
        layers = layers_of(self.cut)
        fitted = plural(self.positions, "position")
        reached = f"relative error {self.error_before:.3f} to {self.error_after:.3f} on {fitted} of the fit"
        notes = [f"{layers}: {reached}, {self.held_out_words}; ridge {self.ridge:g}"]
        if self.underdetermined:
            unknowns = f"{self.unknowns:,} unknowns of each output"
            notes.append(f"{layers}: warning: {fitted} are few for {unknowns}; heal with more clips")
        return notes


def fit_linear(
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
    """Bridge every cut of a plan by new weights of the down projection before it.

    Args:
        teacher: the unpruned model.
        plan: what is missing from the pruned one.
        batches: clips, padded on either side; padding never counts.
        held_out: other clips, which are not fitted: the fit is tested on them.
        fit: what is free, see the module.
        ridge: pulls towards the plainly pruned model; relative to the mean square of the features. None takes the one
            of `RIDGES` with the least error on the clips that are held out, for each cut.
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
    for batch in held_out:
        fits.add(batch, held_out=True)
    return fits.solve(ridge)


def apply_linear(pruned: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy what `fit_linear` found into a pruned model, keeping its dtype and device; on an error nothing is changed.

    Layers are not copied by pruning in memory, so a teacher that shares them is changed too.

    Raises:
        ModelError: a name or a shape does not fit.
    """
    parameters = {name: _parameter(pruned, name, tensor.shape) for name, tensor in tensors.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
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


class _Sums:
    """The sums over some positions: of the regression, and of the states x_e that it should meet."""

    def __init__(self) -> None:
        self.equations = NormalEquations()
        self._moments: list[Tensor | float] = [0.0, 0.0, 0.0]

    def add(self, features: Tensor, start: Tensor, stop: Tensor, weights: Tensor) -> None:
        """Add features (N, k), states x_s and x_e (N, d) and weights (N,)."""
        self.equations.add(features, stop - start, weights)
        added = (weights.sum(), weights @ stop, weights @ stop.square().sum(1))
        self._moments = [old + new for old, new in zip(self._moments, added, strict=True)]

    def error(self, solution: Tensor | None = None) -> float:
        """Relative error of R (d, k); default R = 0. NaN where the states do not differ."""
        weight, total, square = map(torch.as_tensor, self._moments)
        spread = float(square - total.square().sum() / weight)
        return self.equations.error(solution) / spread if self.equations.positions > 1 and spread > 0 else math.nan


@dataclass(slots=True)
class CutFit:
    """A down projection that is fitted: the cut it stands before, and the sums of its fit."""

    cut: Cut
    """Empty (`start` is `stop`) where the layer stands before no cut."""
    projection: DownProjection
    fit: Fit = "weights"
    weighting: Weighting = "relative"
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    """Features c p or c (h, 1) of the batch that runs, (N, k)."""
    fitted: _Sums = field(default_factory=_Sums)
    held_out: _Sums = field(default_factory=_Sums)

    @property
    def bytes_of_sums(self) -> int:
        """What the sums take at most, those for a solution with them."""
        widest = max(max(linear.weight.shape) for linear in self.projection.linears())
        return 3 * 8 * widest**2

    def listen(self, mask: Tensor) -> Callable[[], None]:
        """Fill `rows` with the positions in `mask` (B, T) of what runs from now on; call the answer to stop."""

        def hook(down: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            taken = output if self.fit == "map" else args[0]
            rows = positions(taken, mask)
            if self.fit == "weights" and down.bias is not None:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            self.rows = rows

        return self.projection.proved.register_forward_hook(hook).remove

    def add(self, start: Tensor, stop: Tensor, names: Sequence[str], *, held_out: bool) -> None:
        """Add the positions whose features are in `rows`.

        Args:
            start: what the layer gives, (N, d).
            stop: what it should give, (N, d).
            names: of the clips that the positions belong to.
            held_out: test the fit on them instead.

        Raises:
            MeasureError: a state is zero or not finite.
        """
        start, stop, rows = exact(start), exact(stop), exact(self.rows)
        self.rows = torch.empty(0)
        squares = stop.square().sum(1)
        weights = 1 / squares if self.weighting == "relative" else torch.ones_like(squares)
        finite = torch.isfinite(start).all(1) & torch.isfinite(weights) & torch.isfinite(squares)
        finite &= torch.isfinite(rows).all(1).to(finite.device)
        if not bool(finite.all()):
            clip = names[int((~finite).nonzero()[0])]
            raise MeasureError(
                f"clip {clip}: a state around {layers_of(self.cut)} is zero or not finite; try float32, or leave the "
                "clip out"
            )
        sums = self.held_out if held_out else self.fitted
        sums.add(self.projection.factor * rows, start, stop, weights)

    def solve(self, ridge: float | None) -> tuple[Tensor, float]:
        """R (d, k) and its ridge: the given one, or the best on the positions that were held out."""
        if ridge is None and not math.isnan(self.held_out.error()):
            solutions = ((self.fitted.equations.solve(tried), tried) for tried in RIDGES)
            return min(solutions, key=lambda solved: self.held_out.error(solved[0]))
        ridge = RIDGE if ridge is None else ridge
        return self.fitted.equations.solve(ridge), ridge

    def folded(self, solution: Tensor) -> dict[str, Tensor]:
        """The new weight, and bias, of the down projection that R (d, k) makes, in the dtype of the old ones."""
        down = self.projection.proved
        flip = isinstance(down, Conv1D)  # whose weight is (d_ff, d)
        old = exact(down.weight).to(solution.device)
        old = old.T if flip else old
        width = old.shape[1]
        new = old + (solution @ old if self.fit == "map" else solution[:, :width])
        tensors = {"weight": (new.T if flip else new).contiguous().to(down.weight)}
        if down.bias is not None:
            bias = exact(down.bias).to(solution.device)
            change = solution @ bias if self.fit == "map" else solution[:, width]
            tensors["bias"] = (bias + change).to(down.bias)
        return tensors

    def report(self, solution: Tensor, ridge: float, changed: int) -> LinearFit:
        """How well R (d, k) does, which changed so many parameters.

        Raises:
            MeasureError: the states to be met do not differ, so there is nothing to compare an error with.
        """
        before, after = self.fitted.error(), self.fitted.error(solution)
        if math.isnan(before):
            raise MeasureError("the state after the cut is the same at all positions; fit with more clips")
        tested = not math.isnan(self.held_out.error())
        return LinearFit(
            self.cut,
            before,
            after,
            held_out_before=self.held_out.error() if tested else None,
            held_out_after=self.held_out.error(solution) if tested else None,
            positions=self.fitted.equations.positions,
            held_out_positions=self.held_out.equations.positions,
            unknowns=solution.shape[1],
            ridge=ridge,
            parameters=changed,
        )


@contextmanager
def folded_in(down: Any, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights (name → tensor) in a linear layer for the time of the block."""
    old = {name: getattr(down, name).data for name in tensors}
    try:
        for name, tensor in tensors.items():
            getattr(down, name).data = tensor
        yield
    finally:
        for name, tensor in old.items():
            getattr(down, name).data = tensor


def check_words(fit: Fit, weighting: Weighting) -> None:
    """Make sure that both are known.

    Raises:
        UsageError: one is not.
    """
    if fit not in ("map", "weights") or weighting not in ("none", "relative"):
        raise UsageError(f"unknown fit {fit!r} or weighting {weighting!r}", fix="use map or weights, none or relative")


def layers_of(cut: Cut) -> str:
    """A cut in words; where it is empty, the layer before it."""
    return f"layers {cut.start}-{cut.stop - 1}" if cut.layers else f"layer {cut.start - 1}"


class LinearFits:
    """Adds up what one batch after the other gives, and solves it for any ridge; arguments as `fit_linear`.

    Instead of a plan it takes cuts of several: the fits do not see each other.
    """

    def __init__(
        self,
        teacher: LoadedModel,
        plan: Plan | Sequence[Cut],
        *,
        fit: Fit = "weights",
        weighting: Weighting = "relative",
        scope: Scope = "all",
    ) -> None:
        check_words(fit, weighting)
        if not isinstance(plan, Sequence):
            kept_layers(plan, len(teacher.layers))
        cuts = plan if isinstance(plan, Sequence) else cuts_of(plan)
        self._teacher, self._scope = teacher, scope
        self.cuts = [CutFit(cut, down_projection(teacher, cut), fit, weighting) for cut in cuts]

    def add(self, batch: PreparedBatch, *, held_out: bool = False) -> None:
        """Add the positions of one more batch, to test the fit on if it is `held_out`; raises as `fit_linear`."""
        # What a batch holds may have been made in inference mode, whose tensors no one could train afterwards.
        with torch.inference_mode(False), torch.no_grad():
            unproved = [fit.projection for fit in self.cuts if fit.projection.linear is None]
            if unproved:
                prove_projections(unproved, batch.attention_mask.bool(), lambda: self._run(batch))
            mask = batch.scope(self._scope)
            with recording(self._teacher.layers, self._teacher.family.state) as buffer, self._listening(mask):
                buffer.start(mask)
                self._run(batch)
                states = buffer.take()
            names = [batch.ids[row] for row in mask.nonzero()[:, 0].tolist()]
            for fit in self.cuts:
                fit.add(states[:, fit.cut.start], states[:, fit.cut.stop], names, held_out=held_out)

    def solve(self, ridge: float | None = RIDGE) -> tuple[dict[str, Tensor], list[LinearFit]]:
        """The new tensors and the reports, as `fit_linear`; the sums stay, so it can be solved again."""
        tensors: dict[str, Tensor] = {}
        report: list[LinearFit] = []
        with torch.inference_mode(False), torch.no_grad():
            for fit in self.cuts:
                solution, chosen = fit.solve(ridge)
                new = fit.folded(solution)
                name = f"{self._teacher.family.layers_path(self._teacher.model)}.{fit.cut.before}.{fit.projection.name}"
                tensors |= {f"{name}.{kind}": tensor for kind, tensor in new.items()}
                report.append(fit.report(solution, chosen, sum(tensor.numel() for tensor in new.values())))
        return tensors, report

    def _run(self, batch: PreparedBatch) -> None:
        decoder = self._teacher.decoder
        decoder(**decoder_arguments(decoder, batch), use_cache=False)

    @contextmanager
    def _listening(self, mask: Tensor) -> Iterator[None]:
        """Fill the fits' `rows` with the positions in `mask` (B, T) of what runs inside."""
        with ExitStack() as hooks:
            for fit in self.cuts:
                hooks.callback(fit.listen(mask))
            yield
