"""How plans are found and tried: everything but the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.errors import UsageError
from shoal.evaluation.settings import Resampling, TokenLimit
from shoal.schema import PARTS, SCOPES, InputKind, Part, Scope
from shoal.selection.values import IMPORTANCE

BLOCK_METRICS = ("angular", "influence", "gradient", "gradient-signed", "ablation")
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "greedy": ("ablation",),
    "beam": ("ablation",),
    "contiguous": BLOCK_METRICS,
    "lowest": ("influence", "angular", "gradient", "gradient-signed", "ablation"),
}
"""Strategy → what it can choose by, its default first. Only ablation can be measured for any set of layers."""


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
        """Of a part alone only ablation and gradients can be measured."""
        known = STRATEGIES[self.strategy]
        if self.part == "layer":
            return known
        if self.strategy == "contiguous":
            raise UsageError(
                "contiguous takes whole layers", where="--part", fix="use --strategy greedy, beam or lowest"
            )
        return tuple(
            sorted((name for name in known if name in IMPORTANCE), key=lambda name: name != "ablation")
        )

    @property
    def ranked_by(self) -> str:
        """The metric."""
        return self.metric or self._metrics[0]

    @property
    def counted(self) -> Scope:
        """The scope: of a loss the response, else every position."""
        return self.scope or ("text" if self.ranked_by in IMPORTANCE else "all")


def _one_of(
    flag: str, value: str, known: tuple[str, ...] | Mapping[str, object], problem: str = "unknown"
) -> None:
    if value not in known:
        raise UsageError(f"{problem} {value!r}", where=flag, fix=f"use {', '.join(known)}")
