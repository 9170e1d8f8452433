"""The scores of a model and of plans over it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.plan import Plan
from shoal.schema.record import Estimate, Record


class Counts(Record):
    """Edit operations of a corpus; the rate is (sub + ins + dels) / (hits + sub + dels)."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int


class Delta(Record):
    """Paired difference from the baseline on the same clips. `relative` is None if the baseline is 0."""

    absolute: Estimate
    relative: Estimate | None = None
    p_value: float | None = None
    """Two-sided, from the paired bootstrap."""
    p_holm: float | None = None
    """After Holm's correction: over all systems of the document that are compared with the baseline, or, for the
    headline score of a group, over the groups of its field that are large enough to be judged."""


class MeasuredScore(Record):
    """One score of a task, such as BLEU or accuracy."""

    value: Estimate
    delta: Delta | None = None
    """From the baseline, in the unit of the score: a drop is negative, whichever way is better."""
    higher_is_better: bool
    fraction: bool = False
    """Whether 1 is a hundred per cent; else the score itself is on 0-100."""
    signature: str
    """What computed it, with version and settings."""


class GroupScore(Record):
    """Scores of the clips that share one value of a manifest field."""

    clips: int
    wer: Estimate
    delta: Delta | None = None
    measures: dict[str, MeasuredScore] = Field(default_factory=dict)
    """What a task other than `asr` is scored by, as in `SystemScores`."""


class SystemScores(Record):
    """One system (the unpruned model or one plan) on the clips."""

    name: str
    model_ref: str | None = None
    """The checkpoint, where it is another one than the document's model."""
    plan: Plan | None = None
    removed: list[int] = Field(default_factory=list)
    wer: Estimate
    """Of `asr`; for other tasks no more than the rate of edits between answer and reference, see `measures`."""
    cer: Estimate
    compound_wer: Estimate | None = None
    """WER after compounds were merged ("white paper" / "whitepaper"), by kaldialign; None but for `asr`."""
    disagreements: int = 0
    """Utterances whose plain word errors kaldialign and jiwer count differently: 0, or one of them is wrong."""
    word_counts: Counts
    char_counts: Counts
    empty_references: int = 0
    truncated: int = 0
    """Outputs cut at the token limit: usually a loop."""
    delta_wer: Delta | None = None
    measures: dict[str, MeasuredScore] = Field(default_factory=dict)
    """What a task other than `asr` is scored by, by name, the headline first."""
    groups: dict[str, dict[str, GroupScore]] = Field(default_factory=dict)
    """Field → value → score; `worst_group` names the field's worst. The field `data` is the data set of a clip, the
    field `domain` pools the sets that are `in` and `out` of domain."""
    worst_group: dict[str, str] = Field(default_factory=dict)
    most_worsened: dict[str, str] = Field(default_factory=dict)
    """Field → the group whose headline score worsened most against its own baseline, in points; none where none did."""
    standard_errors: dict[str, float] = Field(default_factory=dict)
    """Of `wer`, `cer`, `compound_wer` and each measure, by name: the standard deviation over the bootstrap draws."""
    outputs_file: str | None = None
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    generated_tokens: int = 0


class Example(Record):
    """One clip under several systems, for the report."""

    id: str
    reference: str
    outputs: dict[str, str]
    """System name → raw output."""


class Scores(Document):
    """Task scores of a model and of plans over it; the first system is the baseline."""

    kind: Literal["scores"] = "scores"
    model: ModelInfo
    data: DataInfo
    task: str
    task_settings: dict[str, Any] = Field(default_factory=dict)
    """What the task was (`shoal.tasks.TaskSettings`); empty: Shoal's own of that name, as it is."""
    normaliser: str
    """Name and version."""
    scorer: str
    """Name and version."""
    decoding: dict[str, Any] = Field(default_factory=dict)
    replicates: int = 1000
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0
    out_of_domain: list[str] = Field(default_factory=list)
    """Data sets that are unlike what the model was trained, or the plans were chosen, on."""
    systems: list[SystemScores]
    examples: list[Example] = Field(default_factory=list)
