"""Which clusters each bootstrap replicate draws: utterances, or speakers with all their utterances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from shoal.schema.record import Drawn
from shoal.statistics.arrays import Floats
from shoal.terms import FEW_CLUSTERS, Caution

MAX_CLUSTERS = 4096
"""With more utterances than this, random groups of them are resampled: the variance of the mean is the same in
expectation, and memory stays bounded."""
COARSE = 256
"""Groups of clusters for what costs much and hardly gains by more of them."""
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
        return self.drawn(self.by_cluster(columns)).reshape(len(self.weights), *values.shape[1:])

    def by_cluster(self, columns: npt.NDArray[np.generic]) -> Floats:
        """Sums of `columns` (U, S) over the utterances of each cluster: (clusters, S)."""
        sums = np.zeros((self.clusters, columns.shape[1]))
        for index, column in enumerate(columns.T):
            sums[:, index] = np.bincount(self.groups, column, minlength=self.clusters)
        return sums

    def drawn(self, by_cluster: Floats) -> Floats:
        """Replicates of the column sums of `by_cluster` (clusters, S): (replicates, S)."""
        return np.concatenate([rows @ by_cluster for rows in self.blocks()])

    def blocks(self) -> Iterator[Floats]:
        """The weights, some rows at a time."""
        for start in range(0, len(self.weights), ROWS):
            yield self.weights[start : start + ROWS].astype(np.float64)

    @cached_property
    def coarse(self) -> Resampler:
        """The same with `COARSE` random groups of clusters, where there are more clusters than that."""
        if self.clusters <= COARSE:
            return self
        generator = np.random.default_rng(0)
        groups = (generator.permutation(self.clusters) % COARSE)[self.groups]
        return Resampler(groups, _draws(generator, COARSE, len(self.weights)))

    def means(self, sums: Floats, counts: npt.NDArray[np.int64]) -> Floats:
        """Replicates (replicates, C) of sums (U, C) / counts (U,); NaN where a replicate drew no position."""
        drawn = self.totals(counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.totals(sums) / drawn[:, None]


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn, and why an interval over it may not be relied on."""

    clusters: Sequence[str | None]
    """The cluster of each utterance; None makes an utterance its own."""
    caution: Caution | None

    @classmethod
    def of(cls, speakers: Sequence[str | None], by: Literal["utterance", "speaker"]) -> Units:
        """Speakers with all their utterances, wherever speakers are known: the utterances of one are alike.

        Args:
            speakers: of each utterance, None where it names none.
            by: `utterance` draws utterances whoever spoke.
        """
        named = set(speakers)
        one_speaker = by == "speaker" and len(named) == 1 and None not in named
        clusters = speakers if by == "speaker" and not one_speaker else [None] * len(speakers)
        few = len(set(clusters) - {None}) + sum(name is None for name in clusters) < FEW_CLUSTERS
        return cls(clusters, "one speaker" if one_speaker else "few clusters" if few else None)

    @property
    def drawn(self) -> Drawn:
        """For the record."""
        alone = sum(name is None for name in self.clusters)
        return Drawn(speakers=len(set(self.clusters) - {None}), clips=alone, caution=self.caution)


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
