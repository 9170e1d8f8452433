"""The search: the shallowest plan within a budget, and the proof on clips it was not chosen on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.plan import Plan
from shoal.schema.record import Drawn, Estimate, Record, absent_layers
from shoal.terms import InputKind, Part, Scope


class Budget(Record):
    """What a plan must keep to. A quality budget bounds what is lost, a cost budget what the pruned model may cost."""

    max_increase: float | None = None
    """Highest relative rise of an error rate (WER), or relative fall of a score (BLEU): 0.25 for 25 %."""
    confidence: float = 0.95
    """One-sided, of the bound that must lie within `max_increase`, and of each test on unseen clips."""
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
    clips_needed: int | None = None
    """About how many confirmation clips would confirm it with 80 % power, if its change is as measured here; None where
    that is not below the budget, or no million is enough."""
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
    """One-sided, of the hypothesis that it is worse by `Search.tested_increase` or more, with one unseen clip among the
    draws on which it loses everything that the token limit allows; None where there is nothing to draw, and in files
    from before version 3."""
    p_seen: float | None = None
    """The same over the clips seen alone."""
    p_holm: float | None = None
    """`p_seen` after Holm's correction over all plans that were tested, in files from before version 3."""
    holds: bool
    """On the clips seen (or by its value, or within the bounds on costs, where no more is asked)."""
    confirmed: bool = False
    """Also with the unseen clip, as all plans before it, and with 20 clusters or more in both splits."""


class Search(Document):
    """What was asked, tried and found."""

    kind: Literal["search"] = "search"
    schema_version: int = 3
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
    """Plans that are tested on the confirmation split at most: the deepest that held, the least pruned of them first,
    until one fails."""
    allow_last: bool = False
    """Whether the last layer may go too."""
    validation_clips: int
    confirmation_clips: int
    validation_drawn: Drawn | None = None
    """What bounds and tests draw; None in files from before version 3."""
    confirmation_drawn: Drawn | None = None
    least_clips_needed: int | None = None
    """About how many confirmation clips would confirm a plan that changes nothing, by what the unpruned model says to
    the validation clips."""
    shared_speakers: int = 0
    """Speakers in both splits (0 where they could be kept apart)."""
    full_validation: Estimate
    full_confirmation: Estimate
    steps: list[SearchStep]
    confirmations: list[Confirmation] = Field(default_factory=list)
    chosen: Plan | None = None
    """The deepest plan that is confirmed, else the deepest that holds on the clips seen."""
    confirmed: bool = False
    """Whether the chosen plan is; never where its value or costs alone decide."""
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
        """Before version 2 the name of the score had to tell which way it runs and what it is counted in.

        Before version 3 the tests counted no unseen loop, and Holm corrected them for one another.
        """
        losses = ("loss", "perplexity", "word perplexity", "bits per byte")
        name = data["score_name"]
        return {
            "higher_is_better": name not in ("WER", "CER", *losses),
            "fraction": name not in ("BLEU", "chrF", *losses),
            **data,
            "confirmations": [
                {**test, "p_seen": test.get("p_value"), "p_value": None} for test in data.get("confirmations", ())
            ],
        }
