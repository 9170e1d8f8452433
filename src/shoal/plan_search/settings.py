"""How plans are found and tried: everything but the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.errors import UsageError
from shoal.evaluation.settings import Resampling, TokenLimit
from shoal.measurement.metrics import options
from shoal.measurement.metrics.metric import CosineMetric, ImportanceMetric
from shoal.schema import PARTS, SCOPES, InputKind, Part, Scope

STRATEGIES: Mapping[str, str | None] = {
    "greedy": None,
    "beam": None,
    "contiguous": "angular",
    "lowest": "influence",
}
"""Strategy → what it chooses by unless told; None: only by what can be measured for any set of layers."""


@dataclass(frozen=True)
class SearchSettings:
    """See `shoal.plan_search.search`.

    Raises:
        UsageError: a name that is unknown or does not fit the others, or a number that is too small.
    """

    strategy: str = "greedy"
    metric: str | None = None
    input: InputKind = "speech"
    scope: Scope | None = None
    part: Part = "layer"
    width: int = 3
    allow_last: bool = False
    patience: int = 2
    confirm_plans: int = 3
    batch_size: int = 16
    limit: TokenLimit = field(default_factory=TokenLimit)
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        _one_of("--strategy", self.strategy, STRATEGIES)
        _one_of("--part", self.part, PARTS)
        _one_of("--input", self.input, ("speech", "text"))
        _one_of("--metric", self.ranked_by, self._metrics, f"{self.strategy} of {self.part}s cannot rank by")
        if self.scope is not None:
            _one_of("--scope", self.scope, SCOPES)
        for name in ("width", "patience", "confirm_plans", "batch_size"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{getattr(self, name)} is too few", where=flag, fix="give 1 or more")

    @property
    def _metrics(self) -> tuple[str, ...]:
        """What the strategy can choose by, its default first; of a part alone what can measure that."""
        if self.part != "layer" and self.strategy == "contiguous":
            raise UsageError(
                "contiguous takes whole layers", where="--part", fix="use --strategy greedy, beam or lowest"
            )
        usual = STRATEGIES[self.strategy]
        known = {name: metric for name, metric in searchable().items() if self._fits(metric, usual is None)}
        measured = [
            name for name, metric in known.items() if not isinstance(metric, CosineMetric) and metric.measured
        ]
        first = usual if self.part == "layer" and usual else next(iter(measured), None)
        return tuple(sorted(known, key=lambda name: name != first))

    def _fits(self, metric: CosineMetric | ImportanceMetric, any_layers: bool) -> bool:
        if isinstance(metric, CosineMetric):
            return self.part == "layer" and not any_layers
        return self.part in metric.parts and (metric.of_any_layers is not None or not any_layers)

    @property
    def ranked_by(self) -> str:
        """The metric."""
        return self.metric or self._metrics[0]

    @property
    def counted(self) -> Scope:
        """The scope: of a loss the response, else every position."""
        return self.scope or ("all" if isinstance(options()[self.ranked_by][0], CosineMetric) else "text")


def searchable() -> dict[str, CosineMetric | ImportanceMetric]:
    """All that a search can choose by: of a metric that is measured again at every step its first quantity alone."""
    return {
        name: metric
        for name, (metric, quantity) in options().items()
        if not isinstance(metric, ImportanceMetric)
        or metric.of_any_layers is None
        or quantity == metric.quantities[0]
    }


def _one_of(
    flag: str, value: str, known: tuple[str, ...] | Mapping[str, object], problem: str = "unknown"
) -> None:
    if value not in known:
        raise UsageError(f"{problem} {value!r}", where=flag, fix=f"use {', '.join(known)}")
