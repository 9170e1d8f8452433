"""The search: the shallowest plan within a budget, and the proof on clips it was not chosen on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.plan import Plan
from shoal.schema.record import Estimate, Record, absent_layers
from shoal.terms import InputKind, Part, Scope


class Budget(Record):
    """What a plan must keep to. A quality budget bounds what is lost, a cost budget what the pruned model may cost."""

    max_increase: float | None = None
    """Highest relative rise of an error rate (WER), or relative fall of a score (BLEU): 0.25 for 25 %."""
    confidence: float = 0.95
    """One-sided, of the bound that must lie within `max_increase`, and of the test on unseen clips."""
    point: bool = False
    """The value alone must lie within `max_increase`; bound and test are for information."""
    max_layers: int | None = None
    """Layers the pruned decoder may have at most."""
    max_milliseconds: float | None = None
    """Latency of one clip: encode, prefill and decode."""
    max_megabytes: float | None = None
    """Size of the weights in the model's dtype, 10^6 bytes."""


class SearchStep(Record):
    """One plan that was tried on the validation split."""

    plan: Plan
    measure: Estimate | None = None
    """The metric's value that the strategy chose it by, if that is one number."""
    score: Estimate
    """The task's score on the validation split."""
    change: Estimate
    """Relative to the unpruned model, positive is worse; `high` is the one-sided bound at the budget's confidence, None
    where it is open or there is nothing to resample."""
    holds: bool
    milliseconds: float | None = None
    milliseconds_bound: float | None = None
    """The one-sided upper bound at the budget's confidence, which must keep to the budget unless the value may."""
    megabytes: float | None = None


class Confirmation(Record):
    """One plan on the split that the search has not seen."""

    plan: Plan
    score: Estimate
    change: Estimate
    p_value: float | None = None
    """One-sided, of the hypothesis that it is worse by more than `Search.tested_increase`; None where there is nothing
    to resample."""
    p_holm: float | None = None
    """After Holm's correction over all plans that were tested."""
    holds: bool


class Search(Document):
    """What was asked, tried and found."""

    kind: Literal["search"] = "search"
    schema_version: int = 2
    model: ModelInfo
    name: str = "full"
    """Of the model without any plan: that of its folder where it was pruned before."""
    data: DataInfo
    task: str
    score_name: str
    """Such as `WER` or `BLEU`."""
    higher_is_better: bool
    fraction: bool
    """Whether 1 is a hundred per cent."""
    budget: Budget
    tested_increase: float | None = None
    """What the tests are against: `max_increase`, or what is usual for the task where only costs are bounded (then for
    information)."""
    strategy: str
    metric: str
    input: InputKind
    scope: Scope
    part: Part = "layer"
    width: int | None = None
    """Of a beam."""
    patience: int = 2
    """Plans in a row whose change breaks the budget, after which no deeper one is tried."""
    confirm_plans: int = 3
    """Plans that are tested on the confirmation split at most."""
    allow_last: bool = False
    """Whether the last layer may go too."""
    validation_clips: int
    confirmation_clips: int
    shared_speakers: int = 0
    """Speakers in both splits (0 where they could be kept apart)."""
    full_validation: Estimate
    full_confirmation: Estimate
    steps: list[SearchStep]
    confirmations: list[Confirmation] = Field(default_factory=list)
    chosen: Plan | None = None
    reason: str = ""
    """Why there is no plan, or why this one and no shallower."""
    replicates: int
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0

    @property
    def missing(self) -> list[int]:
        """Layers that the model itself lacks, in the numbering of the model that it was made from."""
        return self.model.removed_layers

    def absent_layers(self, plan: Plan) -> list[int]:
        """What the model goes without under a plan, see `SystemRecord.absent_layers`."""
        return absent_layers(self.missing, plan.layers)

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Before version 2 the name of the score had to tell which way it runs and what it is counted in."""
        losses = ("loss", "perplexity", "word perplexity", "bits per byte")
        name = data["score_name"]
        return {
            **data,
            "higher_is_better": name not in ("WER", "CER", *losses),
            "fraction": name not in ("BLEU", "chrF", *losses),
        }
