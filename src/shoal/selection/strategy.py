"""What a strategy is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from shoal.schema import Estimate, Importance, ScopeAudit
from shoal.selection.values import IMPORTANCE, value_of

RANKED_BLOCKS: tuple[str, ...] = ("angular", "influence", *IMPORTANCE)
"""Metrics that give blocks a value."""


@dataclass(frozen=True)
class Request:
    """Which layers to choose from.

    Args:
        depth: number of layers L.
        count: how many to remove, 1 … L-1.
        measured: one scope of one input of an audit of this depth.
        metric: what to rank by; None if the strategy does not rank.
        seed: of anything drawn.
        allow_last: the last layer may go too.
        importance: what `metric` measured, if that is gradient or ablation.
        level: of the intervals.
        others: the same request to further audits, for a strategy that takes several.
        combine: how such a strategy joins them.
        weights: how much each of them counts, this one first; None: alike.
    """

    depth: int
    count: int
    measured: ScopeAudit
    metric: str | None = None
    seed: int = 0
    allow_last: bool = False
    importance: Importance | None = None
    level: float = 0.95
    others: tuple[Request, ...] = ()
    combine: Literal["mean", "worst"] = "mean"
    weights: Sequence[float] | None = None

    @property
    def candidates(self) -> range:
        """The layers that may go."""
        return range(self.depth if self.allow_last else self.depth - 1)

    @property
    def blocks(self) -> list[range]:
        """The blocks of `count` layers that may go, by start."""
        return [range(start, start + self.count) for start in range(len(self.candidates) - self.count + 1)]

    @property
    def sides(self) -> tuple[Request, ...]:
        """This request and the others."""
        return (self, *self.others)

    def value(self, layers: Sequence[int]) -> Estimate | None:
        """What `metric` says of going without one layer or one block; None if it was refused, or dropped by a race.

        Raises:
            UsageError: it was not measured.
        """
        return value_of(self.metric, self.measured, self.importance, layers, self.level)


@dataclass(frozen=True)
class Choice:
    """The layers to remove, ascending, and what is known about the choice."""

    layers: list[int]
    distance: Estimate | None = None
    """Of the block, if the layers are one."""
    stability: float | None = None
    """Share of bootstrap replicates in which the same block would have been chosen."""
    importance: Estimate | None = None
    """By the metric, if that is not the angular distance and has one value for these layers."""


@dataclass(frozen=True)
class Strategy:
    """A way to choose layers.

    Args:
        name: as on the command line.
        choose: the choice itself; the same request gives the same choice.
        metrics: what it can rank by, its default first; empty if it does not look at the measurement.
        draws: it depends on the seed.
        parts: it can take the attention or the MLP of a layer alone.
        several: it can choose for several audits together.
    """

    name: str
    choose: Callable[[Request], Choice]
    metrics: tuple[str, ...] = ()
    draws: bool = False
    parts: bool = False
    several: bool = False
