"""What a metric that lives on cosines is, and which there are.

The collector computes, at every position that counts, the cosine between the states at the two ends of every block.
A metric turns these cosines into columns that are summed per utterance and scope. A new one is one file with an
instance of `CosineMetric` and one line in `METRICS`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from shoal.measurement.angular import Angular
from shoal.measurement.influence import Influence


class CosineMetric(Protocol):
    """A function of the cosines of all blocks at one position."""

    name: str

    def columns(self, depth: int) -> int:
        """How many numbers it gives for a decoder of `depth` layers."""

    def values(self, cosines: Tensor, depth: int) -> Tensor:
        """Map cosines (N, L (L + 1) / 2), float64, in the order of `block_ends`, to (N, columns)."""


METRICS: tuple[CosineMetric, ...] = (Angular(), Influence())


def column_count(depth: int) -> int:
    """How many numbers all metrics together give at one position."""
    return sum(metric.columns(depth) for metric in METRICS)


def metric_slices(depth: int) -> dict[str, slice]:
    """Which columns of the per-utterance sums belong to which metric."""
    slices, first = {}, 0
    for metric in METRICS:
        slices[metric.name] = slice(first, first + metric.columns(depth))
        first += metric.columns(depth)
    return slices
