"""What a strategy is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shoal.schema import Estimate, ScopeAudit


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
    """

    depth: int
    count: int
    measured: ScopeAudit
    metric: str | None = None
    seed: int = 0
    allow_last: bool = False

    @property
    def candidates(self) -> range:
        """The layers that may go."""
        return range(self.depth if self.allow_last else self.depth - 1)


@dataclass(frozen=True)
class Choice:
    """The layers to remove, ascending, and what is known about the choice."""

    layers: list[int]
    distance: Estimate | None = None
    """Of the block, if the layers are one."""
    stability: float | None = None
    """Share of bootstrap replicates in which the same block would have been chosen."""


@dataclass(frozen=True)
class Strategy:
    """A way to choose layers.

    Args:
        name: as on the command line.
        choose: the choice itself; the same request gives the same choice.
        metrics: what it can rank by, its default first; empty if it does not look at the measurement.
        draws: it depends on the seed.
    """

    name: str
    choose: Callable[[Request], Choice]
    metrics: tuple[str, ...] = ()
    draws: bool = False
