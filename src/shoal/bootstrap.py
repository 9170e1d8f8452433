"""Percentile bootstrap of ratios of sums, by utterance or by speaker (Efron & Tibshirani 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.schema import Estimate

Floats = npt.NDArray[np.float64]
MAX_CLUSTERS = 4096
"""With more utterances than this, random groups of them are resampled: the variance of the mean is the same in
expectation, and memory stays bounded."""


@dataclass(frozen=True)
class Resampler:
    """How often each cluster is drawn in each replicate.

    `groups` maps utterance → cluster, shape (U,); `weights` is (replicates, clusters), rows sum to the number of
    clusters. One resampler shared by two measurements of the same utterances makes their difference a paired one.
    """

    groups: npt.NDArray[np.intp]
    weights: Floats

    @property
    def clusters(self) -> int:
        """Number of clusters resampled."""
        return self.weights.shape[1]

    def totals(self, values: npt.NDArray[np.generic]) -> Floats:
        """Replicates of the column sums of `values` (U, C) or (U,): (replicates, C) or (replicates,)."""
        by_cluster = np.zeros((self.clusters, *values.shape[1:]), dtype=np.float64)
        np.add.at(by_cluster, self.groups, values)
        return self.weights @ by_cluster

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
    names = [f"\0{index}" if cluster is None else cluster for index, cluster in enumerate(clusters)]
    groups = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.intp)
    generator = np.random.default_rng(seed)
    count = int(groups.max(initial=-1)) + 1
    if count > max_clusters:
        groups = (generator.permutation(count) % max_clusters)[groups]
        count = max_clusters
    weights = generator.multinomial(count, np.full(count, 1 / count), size=replicates) if count else None
    return Resampler(groups, np.zeros((replicates, 0)) if weights is None else weights.astype(np.float64))


def interval(replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper percentile bounds over axis 0, ignoring NaN replicates."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def estimate_rows(rows: Floats, level: float) -> Estimate:
    """Row 0 of (1 + R,) with the interval of the others, if any of them has a value."""
    if np.isnan(rows[1:]).all():
        return Estimate(value=float(rows[0]), level=level)
    low, high = interval(rows[1:], level)
    return Estimate(value=float(rows[0]), low=float(low), high=float(high), level=level)
