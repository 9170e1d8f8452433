"""Audits of one model, or of one and the LLM inside it, side by side.

Are tasks redundant in the same layers, and what would a shared plan cost each?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from shoal.comparison.audits import (
    Pair,
    Side,
    caution_of,
    mean_overlap,
    read_side,
    resamplers_of,
    same_layers,
    within_sizes,
)
from shoal.comparison.settings import MatrixSettings
from shoal.data_names import short_name
from shoal.errors import UsageError
from shoal.measurement.blocks import block_slice
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import CosineMetric, ImportanceMetric
from shoal.measurement.metrics import cosine_metrics, importances
from shoal.measurement.sums import Sums
from shoal.measurement.trust import aligned, spread
from shoal.provenance import provenance
from shoal.schema import SCOPES, Estimate, InputKind, Scope, TaskLoss, TaskMatrix
from shoal.schema.record import with_caution
from shoal.selection.consensus import best_block, check_one_model, check_weights, combined
from shoal.selection.settings import Combine
from shoal.settings import takes
from shoal.statistics import Floats, Ints, Resampler, halves_of, held_out, mean_bounds

Statistic = Callable[[Floats, Floats], Floats]

SIZES = (1, 2, 4, 8)
"""Layers to remove, unless told."""
CONSENSUS = "consensus"


@takes(MatrixSettings)
def task_matrix(paths: Sequence[str | Path], settings: MatrixSettings | None = None, **options: Any) -> TaskMatrix:
    """Whether tasks, languages or inputs are redundant in the same layers, and what sharing a plan costs each.

    Plans are blocks that keep the last layer, the best of each side and one for all of them. They are chosen by the
    ablation loss where every side has it for all blocks of a size (and no race dropped one), otherwise by the angular
    distance.

    Args:
        paths: audits of one model, or of one and the LLM inside it; or one audit with speech and text.
        settings: what is compared.
        **options: fields of `MatrixSettings`, instead of `settings` or in their place.

    Returns:
        Under a plan that a side refused (what it lost was not finite) that side has no entry in `losses`.

    Raises:
        FileFormatError: a file or its `.npz` is missing or broken.
        UsageError: not one model, or an input, a scope, a size or a weight that does not fit.
    """
    settings = MatrixSettings.of(settings, options)
    scope, sizes, level = settings.scope, settings.sizes, settings.level
    sides = _read_sides([Path(path) for path in paths], settings.inputs)
    _check(sides, scope)
    weights, names = check_weights(settings.weights, len(sides)), labels(sides)
    depth, resamplers = sides[0].sums.depth, resamplers_of(sides, settings.replicates, settings.seed)
    usual = next(metric for metric in cosine_metrics() if metric.per == "block" and scope in metric.scopes)
    distances = [SideCosts.of_cosines(side.sums, scope, usual) for side in sides]
    likeness = [side.means[None] for side in distances]
    possible = _possible_sizes(sizes, depth)
    measure = _measured(sides, possible, every=sizes is not None) or MatrixMeasure(
        usual.name, usual.unit, possible, distances
    )
    rows = MatrixLosses(names, measure.costs, resamplers, depth, settings.combine, weights, level)
    matrix = TaskMatrix(
        provenance=provenance(),
        sides=[side.described(name) for side, name in zip(sides, names, strict=True)],
        scope=scope,
        measure=measure.name,
        unit=measure.unit,
        spearman=_pairwise(likeness, partial(within_sizes, depth=depth)),
        overlap=_pairwise(likeness, partial(mean_overlap, depth=depth)),
        sizes=measure.sizes,
        combine=settings.combine,
        weights=weights,
        losses=[loss for n in measure.sizes for loss in rows.losses(n)],
        replicates=settings.replicates,
        level=level,
    )
    with_caution(matrix, caution_of(sides))
    return matrix


@dataclass(frozen=True)
class SideCosts:
    """The measure of every block on one side, the lower the more redundant."""

    costs: Floats
    """(U, blocks), what each utterance adds; NaN for blocks that were not tried, or refused."""
    counts: Ints
    """(U,), and to how many positions or words."""

    @classmethod
    def of_cosines(cls, sums: Sums, scope: Scope, metric: CosineMetric) -> SideCosts:
        """Of a metric of blocks."""
        costs, counts = sums.scope(scope, metric.name)
        return cls(costs if metric.low_is_redundant else -costs, counts)

    @classmethod
    def of_importance(cls, item: ImportanceSums, sums: Sums) -> SideCosts:
        """Of what was measured in earnest, on some of the utterances or on all."""
        item = aligned(item, sums.utterances)
        values = np.where(item.counts[:, None] > 0, item.values, 0)
        values[:, sorted(item.refused)] = np.nan
        return cls(spread(values, item, sums.depth), item.counts)

    @property
    def means(self) -> Floats:
        """(blocks,)."""
        return np.asarray(self.costs.sum(axis=0) / self.counts.sum())

    def estimate(self, costs: Floats, resampler: Resampler, level: float) -> Estimate:
        """The mean of one block, or of the difference of two: `costs` is (U,)."""
        result = Estimate(value=float(costs.sum() / self.counts.sum()), level=level)
        if resampler.clusters > 1:
            low, high = mean_bounds(costs[:, None], self.counts[:, None], resampler, level)
            result.low, result.high = float(low[0]), float(high[0])
        return result

    def halves(self, resampler: Resampler) -> Resampler:
        """Random halves of the clusters that were measured; the same for sides that are resampled together."""
        return halves_of(resampler, resampler.by_cluster(self.counts[:, None])[:, 0] > 0)

    def held_out(self, costs: Floats, resampler: Resampler, level: float) -> Estimate:
        """Mean of what was chosen on each half, measured on the other: `costs` is (U, halves), NaN where refused."""
        sizes = resampler.by_cluster(self.counts[:, None])[:, 0]
        return held_out(resampler.by_cluster(costs), sizes, self.halves(resampler), level)


@dataclass(frozen=True)
class MatrixMeasure:
    """What plans are chosen by, for each side."""

    name: str
    unit: str
    sizes: list[int]
    costs: list[SideCosts]


@dataclass(frozen=True)
class MatrixLosses:
    """What plans made from the measure cost every side."""

    names: list[str]
    costs: list[SideCosts]
    resamplers: list[Resampler]
    depth: int
    combine: Combine
    weights: list[float]
    level: float

    def losses(self, n: int) -> Iterator[TaskLoss]:
        """What each side loses under each side's plan of n layers and under the consensus.

        Plans stay as the full sample chose them, and their losses are resampled. The excess is not of the clips that
        plans were chosen on: every plan is chosen again on half of the clips and held against the side's own on the
        other half. A side that refused another's block has no loss to report under it.
        """
        plans = [*self.names, CONSENSUS]
        full, again = self._chosen(self._values(n), n), self._chosen_on_halves(n)
        for plan, start, starts in zip(plans, full, again.T, strict=True):
            for place, (name, costs, resampler) in enumerate(zip(self.names, self.costs, self.resamplers, strict=True)):
                blocks = costs.costs[:, self._part(n)]
                apart = blocks[:, starts] - blocks[:, again[:, place]]
                if np.isfinite(blocks[:, start]).all() and np.isfinite(apart).all(axis=0).any():
                    yield TaskLoss(
                        task=name,
                        plan=plan,
                        n=n,
                        layers=list(range(start, start + n)),
                        loss=costs.estimate(blocks[:, start], resampler, self.level),
                        excess=costs.held_out(apart, resampler, self.level),
                    )

    def _chosen(self, values: Floats, n: int) -> list[int]:
        """Where the best block of each side starts, and that of all: values (sides, blocks) of n layers."""
        shared = best_block(combined(values, self.combine, self.weights), n)
        return [*(best_block(row, n) for row in values), shared]

    def _chosen_on_halves(self, n: int) -> Ints:
        """(halves, sides + 1): the same on half of each side's clusters."""
        halved = [
            costs.halves(resampler).means(costs.costs[:, self._part(n)], costs.counts)
            for costs, resampler in zip(self.costs, self.resamplers, strict=True)
        ]
        return np.array([self._chosen(values, n) for values in np.stack(halved, axis=1)])

    def _values(self, n: int) -> Floats:
        """(sides, blocks of n layers that keep the last one)."""
        return np.stack([costs.means[self._part(n)] for costs in self.costs])

    def _part(self, n: int) -> slice:
        blocks = block_slice(self.depth, n)
        return slice(blocks.start, blocks.stop - 1)


def labels(sides: Sequence[Side]) -> list[str]:
    """What sets the sides apart, each label once: of the traits, in order, those that tell more of them apart."""
    chosen: list[tuple[str, ...]] = [() for _ in sides]
    for trait in zip(*(_traits(side) for side in sides), strict=True):
        longer = [(*label, value) for label, value in zip(chosen, trait, strict=True)]
        if len(set(longer)) > len(set(chosen)):
            chosen = longer
    names: list[str] = []
    for label in chosen:
        name = ", ".join(filter(None, label)) or "audit"
        numbered = (f"{name} ({number})" for number in count(2))
        names.append(name if name not in (*names, CONSENSUS) else next(n for n in numbered if n not in names))
    return names


def _traits(side: Side) -> tuple[str, ...]:
    data = side.audit.data
    model = Path(side.audit.model.ref).name
    names = "+".join(data.languages), short_name(data), side.path.resolve().parent.name
    return side.audit.task, model, side.input, *names


def _read_sides(paths: Sequence[Path], inputs: Sequence[InputKind | None] | None) -> list[Side]:
    if len(paths) == 1 and inputs is None:
        paths, inputs = [paths[0], paths[0]], ["speech", "text"]
    kinds = [None] * len(paths) if inputs is None else list(inputs)
    if len(paths) < 2 or len(kinds) != len(paths):
        raise UsageError(
            f"{len(paths)} audits and {len(kinds)} inputs",
            fix="give two audits or more, and an input for each or for none",
        )
    return [read_side(path, kind, None) for path, kind in zip(paths, kinds, strict=True)]


def _check(sides: Sequence[Side], scope: Scope) -> None:
    _check_decoders(sides)
    seen: set[tuple[Path, str]] = set()
    for side in sides:
        if (which := (side.path.resolve(), side.input)) in seen:
            raise UsageError(f"its {side.input} input is given twice", where=str(side.path), fix="give it once")
        seen.add(which)
        if not side.sums.counts[:, SCOPES.index(scope)].sum():
            raise UsageError(
                f"no {scope!r} positions with {side.input} input", where=str(side.path), fix="choose another scope"
            )


def _check_decoders(sides: Sequence[Side]) -> None:
    """All sides are one model; or a model that hears and the LLM inside it, whose weights may have moved since.

    Raises:
        UsageError: they are not.
    """
    hears = [side for side in sides if side.audit.model.kind != "causal_lm"]
    llms = [side for side in sides if side.audit.model.kind == "causal_lm"]
    for group in (hears, llms):
        if group:
            check_one_model([side.audit.model for side in group], [str(side.path) for side in group])
    if hears and llms and not same_layers(hears[0], llms[0]):
        raise UsageError(
            f"{llms[0].audit.model.ref} is not the LLM inside {hears[0].audit.model.ref}: its layers are others",
            where=f"{hears[0].path} and {llms[0].path}",
            fix="give audits of a model and of the LLM that it was made from",
        )


def _possible_sizes(sizes: Sequence[int] | None, depth: int) -> list[int]:
    if sizes is None:
        return [n for n in SIZES if n < depth]
    for n in sizes:
        if not 1 <= n < depth:
            raise UsageError(
                f"{n} of {depth} layers cannot go", where="sizes", fix=f"give numbers from 1 to {depth - 1}"
            )
    return sorted(set(sizes))


def _pairwise(rows: Sequence[Floats], statistic: Statistic) -> list[list[Estimate]]:
    """(sides, sides), symmetric; a side is like itself by definition."""
    sides = range(len(rows))
    upper = {(a, b): Pair(rows[a], rows[b]).observed(statistic) for a in sides for b in range(a)}
    return [[Estimate(value=1.0) if a == b else upper[max(a, b), min(a, b)] for b in sides] for a in sides]


def _measured(sides: Sequence[Side], sizes: list[int], *, every: bool) -> MatrixMeasure | None:
    """What was measured in earnest, where all sides have all blocks of the sizes (with `every`) or of some of them."""
    depth = sides[0].sums.depth
    for metric in importances():
        items = [_trial(side, metric) for side in sides] if metric.measured else []
        known = [item for item in items if item is not None]
        if not known or len(known) < len(sides):
            continue
        complete = [n for n in sizes if all(_has_blocks(item, depth, n) for item in known)]
        if complete and (complete == sizes or not every):
            costs = [SideCosts.of_importance(item, side.sums) for item, side in zip(known, sides, strict=True)]
            return MatrixMeasure(f"{known[0].metric} {known[0].quantity}", known[0].unit, complete, costs)
    return None


def _trial(side: Side, metric: ImportanceMetric) -> ImportanceSums | None:
    """Its first quantity, of whole layers; taken over the response if it was measured over several scopes."""
    about = (metric.name, metric.quantities[0].name, "layer")
    items = [item for item in side.importance if (item.metric, item.quantity, item.part) == about]
    return min(items, key=lambda item: item.scope != "response", default=None)


def _has_blocks(item: ImportanceSums, depth: int, n: int) -> bool:
    """Every block of n layers that keeps the last one was refused, or measured on every clip: no race dropped it."""
    complete = np.all(np.isfinite(item.values[item.counts > 0]), axis=0)
    complete[sorted(item.refused)] = True
    there = {layers for layers, has in zip(item.candidates, complete.tolist(), strict=True) if has}
    return all(tuple(range(start, start + n)) in there for start in range(depth - n))
