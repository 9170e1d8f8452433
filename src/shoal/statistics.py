"""Percentile bootstrap of ratios of sums, by utterance or by speaker (Efron & Tibshirani 1993, ch. 13)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.schema import Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
MAX_CLUSTERS = 4096
"""With more utterances than this, random groups of them are resampled: the variance of the mean is the same in
expectation, and memory stays bounded."""
ROWS = 128
"""Replicates drawn or summed at a time: only so many rows of weights stand in memory as 8 bytes a number."""


@dataclass(frozen=True)
class Resampler:
    """How often each cluster is drawn in each replicate.

    `groups` maps utterance → cluster, shape (U,); `weights` is (replicates, clusters), rows sum to the number of
    clusters. One resampler shared by two measurements of the same utterances makes their difference a paired one.
    """

    groups: npt.NDArray[np.intp]
    weights: npt.NDArray[np.uint16]

    @property
    def clusters(self) -> int:
        """Number of clusters resampled."""
        return self.weights.shape[1]

    def totals(self, values: npt.NDArray[np.generic]) -> Floats:
        """Replicates of the column sums of `values` (U, C) or (U,): (replicates, C) or (replicates,)."""
        columns = values.reshape(len(values), math.prod(values.shape[1:]))
        by_cluster = np.zeros((self.clusters, columns.shape[1]))
        for index, column in enumerate(columns.T):
            by_cluster[:, index] = np.bincount(self.groups, column, minlength=self.clusters)
        parts = range(0, len(self.weights), ROWS)
        totals = [self.weights[start : start + ROWS].astype(np.float64) @ by_cluster for start in parts]
        return np.concatenate(totals).reshape(len(self.weights), *values.shape[1:])

    def means(self, sums: Floats, counts: npt.NDArray[np.int64]) -> Floats:
        """Replicates (replicates, C) of sums (U, C) / counts (U,); NaN where a replicate drew no position."""
        drawn = self.totals(counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.totals(sums) / drawn[:, None]


def make_resampler(
    clusters: Sequence[str | None], *, replicates: int, seed: int, max_clusters: int = MAX_CLUSTERS
) -> Resampler:
    """Draw the weights of a multinomial bootstrap.

    Args:
        clusters: the cluster of each utterance; None makes an utterance its own cluster.
        replicates: number of bootstrap replicates.
        seed: of the draw; the same seed and clusters give the same weights.
        max_clusters: see `MAX_CLUSTERS`.
    """
    groups, count = _numbered(clusters)
    generator = np.random.default_rng(seed)
    if count > max_clusters:
        groups = (generator.permutation(count) % max_clusters)[groups]
        count = max_clusters
    return Resampler(groups, _draws(generator, count, replicates))


def _numbered(clusters: Sequence[str | None]) -> tuple[npt.NDArray[np.intp], int]:
    """Utterance → number of its cluster, and how many there are.

    Utterances of their own come first, in the order of their places as text (0, 1, 10, 11 …), then clusters by name.
    """
    alone = np.array([index for index, name in enumerate(clusters) if name is None], dtype=np.intp)
    named = sorted({name for name in clusters if name is not None})
    number = {name: len(alone) + rank for rank, name in enumerate(named)}
    groups = np.fromiter((0 if name is None else number[name] for name in clusters), np.intp, len(clusters))
    written = alone.astype(f"U{len(str(len(clusters)))}")
    groups[alone[np.argsort(written, kind="stable")]] = np.arange(len(alone))
    return groups, len(alone) + len(named)


def _draws(generator: np.random.Generator, count: int, replicates: int) -> npt.NDArray[np.uint16]:
    """(replicates, count): how often each of `count` clusters is drawn; each is drawn once on average."""
    weights = np.zeros((replicates, count), dtype=np.uint16)
    for start in range(0, replicates if count else 0, ROWS):
        rows = weights[start : start + ROWS]
        rows[:] = generator.multinomial(count, np.full(count, 1 / count), size=len(rows))
    return weights


def interval(replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper percentile bounds over axis 0, ignoring NaN replicates."""
    tail = (1 - level) / 2
    # The one that ignores NaN goes column by column, many times slower.
    quantile = np.nanquantile if np.isnan(replicates).any() else np.quantile
    low, high = quantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def estimate_rows(rows: Floats, level: float) -> Estimate:
    """Row 0 of (1 + R,) with the interval of the others, if any of them has a value."""
    if np.isnan(rows[1:]).all():
        return Estimate(value=float(rows[0]), level=level)
    low, high = interval(rows[1:], level)
    return Estimate(value=float(rows[0]), low=float(low), high=float(high), level=level)


def spearman(x: Floats, y: Floats) -> Floats:
    """Rank correlation (average ranks for ties) of the rows of x and y, both (R, m) → (R,); 0 if one is constant."""
    rank_x, rank_y = ranks(x), ranks(y)
    rank_x -= rank_x.mean(1, keepdims=True)
    rank_y -= rank_y.mean(1, keepdims=True)
    norm = np.sqrt((rank_x**2).sum(1) * (rank_y**2).sum(1))
    return np.divide((rank_x * rank_y).sum(1), norm, out=np.zeros_like(norm), where=norm > 0)


def ranks(x: Floats) -> Floats:
    """Ranks 0 … m-1 within each row of (R, m); equal values share their mean rank."""
    rows, width = x.shape
    order = x.argsort(1, kind="stable")
    ordered = np.take_along_axis(x, order, 1)
    starts = np.concatenate([np.ones((rows, 1), bool), ordered[:, 1:] != ordered[:, :-1]], 1)
    tie = starts.ravel().cumsum() - 1
    positions = np.tile(np.arange(width, dtype=np.float64), rows)
    shared = np.bincount(tie, weights=positions) / np.bincount(tie)
    result = np.empty_like(x)
    np.put_along_axis(result, order, shared[tie].reshape(rows, width), 1)
    return result
