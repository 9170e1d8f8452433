"""What a strategy is given and what it answers, and what an audit says of going without some layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from shoal.errors import UsageError
from shoal.schema import Estimate, Importance, InputAudit, MetricValues, Part, Scope

Values = MetricValues | Importance
"""What plans are chosen by."""


@dataclass(frozen=True)
class Request:
    """Which layers to choose from.

    Args:
        depth: number of layers L.
        count: how many to remove, 1 … L-1.
        metric: what to rank by; None if the strategy does not rank.
        values: what an audit of this depth says by that metric, over one scope of one input.
        seed: of anything drawn.
        allow_last: the last layer may go too.
        level: of the intervals.
        others: the same request to further audits, for a strategy that takes several.
        combine: how such a strategy joins them.
        weights: how much each of them counts, this one first; None: alike.
    """

    depth: int
    count: int
    metric: str | None = None
    values: Values | None = None
    seed: int = 0
    allow_last: bool = False
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
        return None if self.values is None else value_of(self.values, layers, self.level)

    def cost(self, value: Estimate | None) -> float:
        """The lower, the sooner it goes; NaN without a value."""
        if value is None or self.values is None:
            return float("nan")
        return value.value if self.values.low_is_redundant else -value.value

    def ranked(self, candidates: Iterable[Sequence[int]]) -> list[tuple[list[int], Estimate]]:
        """The candidates that have a value, those that go first first, the earlier of equals before the later."""
        values = [(list(layers), self.value(layers)) for layers in candidates]
        known = [(layers, value) for layers, value in values if value is not None]
        return sorted(known, key=lambda item: (self.cost(item[1]), item[0]))


@dataclass(frozen=True)
class Choice:
    """The layers to remove, ascending, and what is known about the choice."""

    layers: list[int]
    value: Estimate | None = None
    """By the metric, if it has one value for these layers."""
    selection_frequency: float | None = None
    """Share of bootstrap replicates in which the same block would have been chosen."""
    confidence_set: list[int] = field(default_factory=list)
    """Starts of the blocks that may be the best."""


@dataclass(frozen=True)
class Strategy:
    """A way to choose layers.

    Args:
        name: as on the command line.
        choose: the choice itself; the same request gives the same choice.
        metric: what it ranks by unless told; None if it does not look at the measurement.
        metric_of_parts: the same of the attention or the MLP of layers alone; None if it takes whole layers.
        draws: it depends on the seed.
        several: it can choose for several audits together.
    """

    name: str
    choose: Callable[[Request], Choice]
    metric: str | None = None
    metric_of_parts: str | None = None
    draws: bool = False
    several: bool = False


def find_importance(measured: InputAudit, option: str, part: Part, scope: Scope | None) -> Importance:
    """What the audit measured that `--metric` calls `option`: in the scope asked for, or in the first there is.

    Raises:
        UsageError: it was not measured.
    """
    of_part = [item for item in measured.importance if item.part == part]
    for item in of_part:
        if item.option == option and scope in (None, item.scope):
            return item
    cosines = [] if part != "layer" else list(dict.fromkeys(n for s in measured.scopes.values() for n in s.metrics))
    known = [*cosines, *dict.fromkeys(item.option for item in of_part)]
    hint = f" (did you mean {close[0]}?)" if (close := get_close_matches(option, known, 1, 0.75)) else ""
    of = "" if part == "layer" else f" of the {part} of layers"
    where = "" if scope is None else f" in scope {scope}"
    flags = f"--metric {option.partition('-')[0]}" + ("" if part == "layer" else f" --part {part}")
    raise UsageError(
        f"the audit did not measure {option!r}{of}{where} with {measured.input} input{hint}",
        where="--metric",
        fix=f"it has {', '.join(known) or 'nothing'}; others are measured by shoal audit {flags}",
    )


def value_of(values: Values, layers: Sequence[int], level: float) -> Estimate | None:
    """The value without `layers` (one, or a block); None if it was refused, or dropped by a race.

    A race measures what it drops on fewer clips, so that its mean stands beside none of the others. A metric of single
    layers has the sum over a block's layers; so has an additive importance of a block that was not measured itself.
    Sums have no interval.

    Raises:
        UsageError: it was not measured.
    """
    if isinstance(values, MetricValues):
        return values.estimate(layers, level)
    layers = list(layers)
    if layers in values.candidates:
        return _candidate(values, values.candidates.index(layers), level)
    if values.additive and len(layers) > 1:
        singles = [value_of(values, [layer], level) for layer in layers]
        known = [single.value for single in singles if single is not None]
        return Estimate(value=sum(known), level=level) if len(known) == len(layers) else None
    raise UsageError(
        f"the audit did not measure the {values.name} without {_named(layers)}",
        where="metric",
        fix=f"measure all of them: shoal audit --metric {values.metric} --block-sizes {len(layers)}",
    )


def _candidate(item: Importance, index: int, level: float) -> Estimate | None:
    if index in item.refused or item.clips[index] < max(item.clips):
        return None
    return item.estimate(index, level)


def _named(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
