"""What a plan must keep to, and how plans are found and tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from cyclopts import Group, Parameter
from pydantic import Field, field_validator, model_validator

from shoal.errors import UsageError
from shoal.measurement.metric_types import CosineMetric, ImportanceMetric
from shoal.measurement.metrics import options
from shoal.settings import OUTPUT, SHARE, SPEED, Intervals, Share
from shoal.terms import InputKind, Part, Scope

if TYPE_CHECKING:
    from shoal.schema.search import Budget

BUDGET = Parameter(group=Group("Budget", sort_key=2.5))
StrategyName = Literal["greedy", "beam", "contiguous", "lowest"]
STRATEGIES: Mapping[StrategyName, str | None] = {
    "greedy": None,
    "beam": None,
    "contiguous": "angular",
    "lowest": "influence",
}
"""Strategy → what it chooses by unless told; None: only by what can be measured for any set of layers."""


def searchable() -> dict[str, CosineMetric | ImportanceMetric]:
    """All that a search can choose by: of a metric that is measured again at every step its first quantity alone."""
    return {
        name: metric
        for name, (metric, quantity) in options().items()
        if not isinstance(metric, ImportanceMetric) or metric.of_any_layers is None or quantity == metric.quantities[0]
    }


class SearchSettings(Intervals):
    """What a plan must keep to, and how plans are found and tried."""

    max_increase: Annotated[Share | None, BUDGET, SHARE, Parameter(name=("--max-increase", "--max-wer-increase"))] = (
        None
    )
    """Highest relative increase of the error rate, or decrease of the score, such as 25%; default, unless a cost is
    bounded: 25% for asr (arXiv 2603.05121), else 10%."""
    confidence: Annotated[float, BUDGET] = 0.95
    """Confidence (one-sided) of the bound on the validation clips and of each test on unseen clips."""
    point: Annotated[bool, BUDGET] = False
    """Let the measured value decide, not its bound or a test; of the latency too."""
    max_layers: Annotated[int | None, BUDGET] = Field(default=None, ge=1)
    """Most layers that the decoder may keep."""
    max_milliseconds: Annotated[float | None, BUDGET, Parameter(name="--max-ms")] = Field(default=None, gt=0)
    """Highest latency of a clip in milliseconds: encode, prefill and 32 tokens, as shoal bench measures it. The upper
    bound at --confidence is judged."""
    max_megabytes: Annotated[float | None, BUDGET, Parameter(name="--max-mb")] = Field(default=None, gt=0)
    """Largest size of the weights in MB (10^6 bytes), in the model's dtype."""
    strategy: StrategyName = "greedy"
    """Strategy that proposes plans."""
    metric: str | None = Field(
        default=None,
        description=f"Metric that plans are chosen by: {', '.join(searchable())}; default: the strategy's own. It is "
        "measured on the validation clips.",
    )
    input: InputKind = "speech"
    """Input that the metric is measured with; decoding is always from speech."""
    scope: Scope | None = None
    """Positions that the metric counts; default: response for ablation and gradient, else all."""
    part: Part = "layer"
    """Part of the layers to remove."""
    width: int = Field(default=3, ge=1)
    """Number of sets of layers that beam keeps at every step."""
    allow_last: bool = False
    """Allow the last layer to go too."""
    patience: int = Field(default=2, ge=1)
    """Number of plans in a row that break the budget before the search stops."""
    confirm_plans: int = Field(default=3, ge=1)
    """Most plans that are tested on unseen clips: the deepest that kept to the budget, the least pruned of them first,
    until one fails."""
    batch_size: Annotated[int, SPEED] = Field(default=16, ge=1)
    """Clips in a batch."""
    max_new_tokens: Annotated[int | None, SPEED] = Field(default=None, ge=1)
    """Most tokens a clip may get; default: 16, and 20 more for every second of audio, up to 448."""
    force: Annotated[bool, OUTPUT] = False
    """Replace the search with other settings that the folder holds; what was decoded and measured is used again."""

    @field_validator("confidence")
    @classmethod
    def _means_something(cls, value: float) -> float:
        if not 0.5 <= value <= 0.999:
            raise ValueError(
                f"{value:g} is no confidence; give one from 0.5 to 0.999, such as 0.95, or take the value alone with "
                "--point"
            )
        return value

    @model_validator(mode="after")
    def _strategy_can_rank(self) -> Self:
        if self.ranked_by not in self._metrics:
            raise UsageError(
                f"{self.strategy} of {self.part}s cannot rank by {self.ranked_by!r}",
                where="--metric",
                fix=f"use {', '.join(self._metrics)}",
            )
        return self

    @property
    def budget(self) -> Budget:
        """What a plan must keep to, for the record."""
        from shoal.schema.search import Budget

        return Budget(**{name: getattr(self, name) for name in Budget.model_fields})

    @property
    def _metrics(self) -> tuple[str, ...]:
        """What the strategy can choose by, its default first; of a part alone what can measure that."""
        if self.part != "layer" and self.strategy == "contiguous":
            raise UsageError(
                "contiguous takes whole layers", where="--part", fix="use --strategy greedy, beam or lowest"
            )
        usual = STRATEGIES[self.strategy]
        metrics = {name: metric for name, metric in searchable().items() if self._fits(metric, usual is None)}
        measured = [
            name for name, metric in metrics.items() if not isinstance(metric, CosineMetric) and metric.measured
        ]
        first = usual if self.part == "layer" and usual else next(iter(measured), None)
        return tuple(sorted(metrics, key=lambda name: name != first))

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
        return self.scope or ("all" if isinstance(options()[self.ranked_by][0], CosineMetric) else "response")
