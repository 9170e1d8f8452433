"""The best block of each size: how sure it is, and what it loses on clips that it was not chosen on."""

from __future__ import annotations

import numpy as np

from shoal.measurement.blocks import block_slice
from shoal.measurement.importance import ImportanceSums
from shoal.schema import BestBlock, Importance, MetricValues
from shoal.statistics import Bools, Floats, Ints, Resampler, confidence_set, halves_of, held_out
from shoal.terms import is_block

TOLERANCE = 0.02
"""A block whose value is at most this much worse than the best, relative, is nearly the best."""


def best_blocks(
    values: MetricValues,
    cost: Floats,
    lost: Floats,
    counts: Ints,
    resampler: Resampler,
    level: float,
    *,
    keep_last: bool = False,
) -> list[BestBlock]:
    """The most redundant block for each n = 1 … L (with `keep_last`, to L-1).

    Args:
        values: of every block.
        cost: (1 + R, blocks), the lower the more redundant, in the order of `block_ends`: row 0 the means, the others
            bootstrap replicates; R is 0 with one cluster.
        lost: (U, blocks), what each utterance adds to the cost.
        counts: (U,), and to how many positions.
        resampler: of the utterances.
        level: of the confidence sets.
        keep_last: leave out the blocks that end at the last layer.
    """
    depth = len(values.values)
    best = []
    for n in range(1, depth + (not keep_last)):
        blocks = block_slice(depth, n)
        part = slice(blocks.start, blocks.stop - keep_last)
        layer = int(cost[0, part].argmin())
        block = BestBlock(n=n, layer=layer, distance=values.estimate(range(layer, layer + n), level))
        if len(cost) > 1:
            block.selection_frequency = _frequency(cost[1:, part], layer)
            block.near_best_frequency = _near_best(cost[1:, part], layer)
            block.confidence_set = np.flatnonzero(confidence_set(lost[:, part], counts, resampler, level)).tolist()
        best.append(block)
    return best


def _frequency(replicates: Floats, layer: int) -> float:
    usable = replicates[~np.isnan(replicates).any(axis=1)]
    return float((usable.argmin(axis=1) == layer).sum() / max(1, len(usable)))


def _near_best(replicates: Floats, layer: int) -> float:
    usable = replicates[~np.isnan(replicates).any(axis=1)]
    best = usable.min(axis=1)
    return float((usable[:, layer] <= best + TOLERANCE * np.abs(best)).sum() / max(1, len(usable)))


def best_measured(
    measured: Importance, sums: ImportanceSums, depth: int, resampler: Resampler, level: float
) -> list[BestBlock]:
    """The block without which least is lost, for each size with two or more that were measured on every clip.

    Blocks that end at the last layer are left out. `held_out` is the loss without the block that is best on half of the
    clusters, measured on the other half.

    Args:
        measured: means with intervals of what was measured in earnest.
        sums: the same clip by clip.
        depth: number of layers L.
        resampler: of the clips.
        level: of intervals and confidence sets.
    """
    complete: Bools = np.isfinite(sums.values[sums.counts > 0]).all(axis=0).reshape(-1)
    sizes: dict[int, list[int]] = {}
    for column, layers in enumerate(sums.candidates):
        if complete[column] and column not in sums.refused and is_block(layers) and layers[-1] < depth - 1:
            sizes.setdefault(len(layers), []).append(column)
    return [_best_measured(measured, sums, sizes[n], resampler, level) for n in sorted(sizes) if len(sizes[n]) > 1]


def _best_measured(
    measured: Importance, sums: ImportanceSums, columns: list[int], resampler: Resampler, level: float
) -> BestBlock:
    """Of blocks of one size that were measured on every clip."""
    known = sums.counts > 0
    lost, starts = np.where(known[:, None], sums.values[:, columns], 0), [sums.candidates[c][0] for c in columns]
    cost = lost if measured.low_is_redundant else -lost
    first = int(cost.sum(axis=0).argmin())
    value = measured.estimate(columns[first], level)
    assert value is not None
    block = BestBlock(n=len(sums.candidates[columns[first]]), layer=starts[first], distance=value)
    clusters = resampler.by_cluster(sums.counts[:, None])[:, 0]
    if np.count_nonzero(clusters) > 1:
        kept = confidence_set(cost, sums.counts, resampler, level)
        block.confidence_set = [start for start, may_be in zip(starts, kept, strict=True) if may_be]
        block.selection_frequency = _frequency(resampler.means(cost, sums.counts), first)
        halves = halves_of(resampler, clusters > 0)
        chosen = halves.totals(cost).argmin(axis=1)
        block.held_out = held_out(halves.by_cluster(lost)[:, chosen], clusters, halves, level)
    return block
