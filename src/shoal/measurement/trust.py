"""Which metric predicts the truth: every metric and scope against what was measured in earnest, size by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from shoal.measurement.blocks import block_count, block_slice
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import CosineMetric
from shoal.measurement.metrics import cosine_metrics, importance_named
from shoal.measurement.sums import Sums
from shoal.schema import SCOPES, Estimate, MetricTrust, Scope, Trust
from shoal.statistics import Bools, Floats, Ints, Resampler, disattenuated, halves_of, held_out, reliability, spearman
from shoal.terms import is_block

TOP_K = 3
MIN_CANDIDATES = 4
"""With fewer blocks of a size there is hardly an order to predict."""


def trust_of(sums: Sums, importance: Sequence[ImportanceSums], resampler: Resampler, level: float) -> list[Trust]:
    """Hold every metric against every quantity of whole layers that a metric measured in earnest, as ablation does.

    A truth counts among blocks of n layers if it has four or more of them measured on all of its clips; blocks that a
    race dropped are left out, for their means are over clips of their own. A metric is judged on the blocks that both
    it and the truth have a value for. Metric and truth choose on half of the clusters, and what they chose is measured
    on the other half.

    Args:
        sums: cosine metrics of U utterances.
        importance: what else was measured on the same utterances, or on some of them, in any order.
        resampler: of these utterances.
        level: of the intervals.

    Returns:
        One for each truth that has enough blocks and two clusters, its metrics by n, then by regret (in the unit of
        the truth).

    Raises:
        KeyError: importance of an utterance that `sums` does not have.
    """
    whole = [aligned(item, sums.utterances) for item in importance if item.part == "layer"]
    measured = [item for item in whole if importance_named(item.metric).measured]
    if not measured:
        return []
    halves = halves_of(
        resampler, resampler.by_cluster(np.stack([item.counts for item in measured], axis=1)).sum(axis=1) > 0
    )
    truths = [(item, Truth.of(item, sums.depth, halves)) for item in measured]
    judged: list[list[MetricTrust]] = [[] for _ in truths]
    for predictor, item in _predictors(sums, whole, halves):
        for metrics, (real, truth) in zip(judged, truths, strict=True):
            if item is not real:
                metrics += _by_size(predictor, truth, sums.depth, level)
    return [
        Trust(truth=truth.ranking.name, unit=item.unit, metrics=sorted(metrics, key=lambda m: (m.n, m.regret.value)))
        for (item, truth), metrics in zip(truths, judged, strict=True)
        if metrics
    ]


@dataclass(frozen=True)
class Ranking:
    """One number for each block: row 0 from the full sample, the others from draws of it.

    `rows` is (1 + draws, L (L + 1) / 2) in the order of `block_ends`, the lower the more redundant, NaN where there is
    no value. `title` is the name in words, `measured` says that it is a trial itself.
    """

    name: str
    scope: Scope
    rows: Floats
    title: str = ""
    measured: bool = False

    @property
    def known(self) -> Bools:
        """(blocks,): where there is a value."""
        return np.isfinite(self.rows[0])


@dataclass(frozen=True)
class Truth:
    """What was measured in earnest of each block, on halves of the clusters."""

    ranking: Ranking
    """Only of what was measured on every clip: the mean of a block that a race dropped is over clips of its own."""
    halves: Resampler
    parts: Floats
    """(clusters, blocks): what each cluster adds to the loss."""
    sizes: Floats
    """(clusters,): how many tokens it has."""

    @classmethod
    def of(cls, item: ImportanceSums, depth: int, halves: Resampler) -> Truth:
        """Of one quantity of whole layers."""
        complete: Bools = np.logical_not(np.isnan(item.values[item.counts > 0]).any(0))
        whole = spread(complete[None].astype(np.float64), item, depth)[0] == 1
        ranking = _of_importance(item, depth, halves)
        sign = 1 if importance_named(item.metric).quantity(item.quantity).low_is_redundant else -1
        lost = spread(halves.by_cluster(np.nan_to_num(sign * item.values)), item, depth)
        sizes = halves.by_cluster(item.counts[:, None])[:, 0]
        return cls(replace(ranking, rows=np.where(whole, ranking.rows, np.nan)), halves, lost, sizes)

    def held_out(self, columns: Ints, best: Ints, usable: Bools, level: float) -> Estimate:
        """Loss without the block that was chosen on each half minus that without the best there, on the other half."""
        apart = np.where(usable, self.parts[:, columns] - self.parts[:, best], np.nan)
        return held_out(apart, self.sizes, self.halves, level)


def aligned(item: ImportanceSums, utterances: Sequence[str]) -> ImportanceSums:
    """The same sums with a row for each of `utterances`: NaN and no tokens for those that were not measured."""
    if item.utterances == tuple(utterances):
        return item
    row_of = {name: row for row, name in enumerate(utterances)}
    rows = [row_of[name] for name in item.utterances]
    values = np.full((len(utterances), item.values.shape[1]), np.nan)
    counts = np.zeros(len(utterances), dtype=np.int64)
    values[rows], counts[rows] = item.values, item.counts
    full = None if item.full is None else np.zeros(len(utterances))
    if full is not None and item.full is not None:
        full[rows] = item.full
    return replace(item, utterances=tuple(utterances), values=values, counts=counts, full=full)


def block_sums(layers: Floats) -> Floats:
    """(R, L) numbers of single layers → (R, L (L + 1) / 2) their sums over each block, in the order of `block_ends`."""
    sizes = range(1, layers.shape[1] + 1)
    return np.concatenate([sliding_window_view(layers, n, axis=1).sum(-1) for n in sizes], axis=1)


def importance_rows(item: ImportanceSums, depth: int, resampler: Resampler) -> Floats:
    """(1 + R, blocks): the blocks among the candidates, row 0 their means, the others bootstrap replicates."""
    rows = item.means()[None]
    if resampler.clusters > 1:
        rows = np.vstack([rows, item.replicates(resampler)])
    return spread(rows, item, depth)


def spread(columns: Floats, item: ImportanceSums, depth: int) -> Floats:
    """(R, candidates) → (R, blocks), NaN for blocks that are no candidates."""
    blocks = np.full((len(columns), block_count(depth)), np.nan)
    for index, layers in enumerate(item.candidates):
        if is_block(layers):
            blocks[:, block_slice(depth, len(layers)).start + layers[0]] = columns[:, index]
    return blocks


def _predictors(
    sums: Sums, importance: Sequence[ImportanceSums], resampler: Resampler
) -> Iterator[tuple[Ranking, ImportanceSums | None]]:
    """One after the other, since the replicates of all of them at once would fill the memory of a deep model."""
    for scope in SCOPES:
        if sums.counts[:, SCOPES.index(scope)].sum():
            for metric in cosine_metrics():
                if metric.name in sums.slices and scope in metric.scopes:
                    rows = cost_rows(sums, scope, metric, resampler)
                    rows = rows if metric.per == "block" else block_sums(rows)
                    yield Ranking(metric.name, scope, rows, metric.title), None
    for item in importance:
        ranking = _of_importance(item, sums.depth, resampler)
        if importance_named(item.metric).additive:
            # A block that was not measured itself counts as the sum of its layers.
            rows, summed = ranking.rows, block_sums(ranking.rows[:, : sums.depth])
            ranking = replace(ranking, rows=np.where(np.isfinite(rows[0]), rows, summed))
        yield ranking, item


def _of_importance(item: ImportanceSums, depth: int, resampler: Resampler) -> Ranking:
    metric = importance_named(item.metric)
    quantity = metric.quantity(item.quantity)
    name = f"{item.metric} {item.quantity}"
    rows = importance_rows(item, depth, resampler)
    rows = rows if quantity.low_is_redundant else -rows
    return Ranking(name, item.scope, rows, quantity.phrase or name, metric.measured)


def cost_rows(sums: Sums, scope: Scope, metric: CosineMetric, resampler: Resampler) -> Floats:
    """(1 + R, columns), the lower the more redundant: row 0 the means, then replicates; R is 0 with one cluster."""
    rows = sums.mean(scope, metric.name)[None]
    if resampler.clusters > 1:
        rows = np.vstack([rows, resampler.means(*sums.scope(scope, metric.name))])
    return rows if metric.low_is_redundant else -rows


def _by_size(metric: Ranking, truth: Truth, depth: int, level: float) -> Iterator[MetricTrust]:
    for n in range(1, depth):
        part = block_slice(depth, n)
        starts = np.flatnonzero((truth.ranking.known & metric.known)[part])
        if len(starts) >= MIN_CANDIDATES and (trust := _trust(metric, truth, n, starts, part.start, level)):
            yield trust


def _trust(metric: Ranking, truth: Truth, n: int, starts: Ints, first: int, level: float) -> MetricTrust | None:
    """None where in no split both halves have a value of every block: a choice among fewer would be another choice."""
    guess, real = (ranking.rows[:, first + starts] for ranking in (metric, truth.ranking))
    known: Bools = np.isfinite(guess[1:] + real[1:]).all(axis=1).reshape(-1)
    usable = known & known[np.arange(len(known)) ^ 1]
    if not usable.any():
        return None
    picked, best = starts[guess.argmin(1)], starts[real.argmin(1)]
    verified = starts[first_verified(guess, real, TOP_K)]
    return MetricTrust(
        metric=metric.name,
        title=metric.title,
        measured=metric.measured,
        scope=metric.scope,
        n=n,
        candidates=len(starts),
        spearman=Estimate(value=float(spearman(guess[:1], real[:1])[0]), level=level),
        reliability=reliability(guess[1:]),
        truth_reliability=reliability(real[1:]),
        disattenuated=disattenuated(guess[1:], real[1:]),
        picked=int(picked[0]),
        best=int(best[0]),
        regret=truth.held_out(first + picked[1:], first + best[1:], usable, level),
        top_k=TOP_K,
        top_k_regret=truth.held_out(first + verified[1:], first + best[1:], usable, level),
    )


def first_verified(guess: Floats, real: Floats, k: int) -> Ints:
    """Of the k blocks that `guess` ranks first the one that `real` says is best: both (R, m) → (R,)."""
    first = guess.argsort(1, kind="stable")[:, :k]
    return np.take_along_axis(first, np.take_along_axis(real, first, 1).argmin(1)[:, None], 1)[:, 0]
