"""The scores of a model and of plans over it: whatever the task, measures by name, the headline first."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.plan import Plan
from shoal.schema.record import Drawn, Estimate, Record, SystemRecord
from shoal.terms import Control


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
    relative_bound_with_unseen: float | None = None
    """Relative worsening (positive is worse): see `MeasuredScore.bound_with_unseen`."""
    p_value: float | None = None
    """Two-sided, by flipping which system said what; see `Scores.intervals`."""
    smallest_p: float | None = None
    """The smallest p-value that this test could give: where few clusters differ it is large. None in older files."""
    p_holm: float | None = None
    """After Holm's correction: over all systems of the document that are compared with the baseline, or, for the
    headline score of a group, over the groups of its field that are large enough to be judged."""


class MeasuredScore(Record):
    """One score of a task, such as WER, BLEU or accuracy."""

    value: Estimate
    delta: Delta | None = None
    """From the baseline, in the unit of the score: a drop is negative, whichever way is better."""
    higher_is_better: bool
    fraction: bool = False
    """Whether 1 is a hundred per cent; else the score itself is on 0-100."""
    signature: str
    """What computed it, with version and settings."""
    standard_error: float | None = None
    """Of the value, linearised; None for groups, and where nothing varies."""
    design_effect: float | None = None
    """How many times larger the variance is for the clips of a speaker being alike; None where clips were drawn one by
    one, and for groups."""
    bound_with_unseen: float | None = None
    """One-sided bound in the worse direction, at the level of the document, that counts one clip more on which a system
    loops up to the token limit; of the headline on all clips, where answers are generated."""
    edits: Counts | None = None
    """What an error rate counted on all clips; None for other scores and for groups."""

    @property
    def sign(self) -> int:
        """-1 where more is better, so that `sign * value` is worse the higher it is."""
        return -1 if self.higher_is_better else 1

    @property
    def worsening(self) -> Estimate | None:
        """Relative change from the baseline, turned so that positive is worse; None where it is not known."""
        relative = self.delta.relative if self.delta else None
        return relative.negated() if relative and self.higher_is_better else relative


class GroupScore(Record):
    """Scores of the clips that share one value of a manifest field."""

    clips: int
    measures: dict[str, MeasuredScore] = Field(default_factory=dict)


class ControlScore(Record):
    """A system that was given audio which is not the clips' own."""

    clips: int
    measures: dict[str, MeasuredScore] = Field(default_factory=dict)
    """What the task is scored by; `delta` is from the same system with the right audio, on the same clips."""
    follows: Estimate | None = None
    """Share of the clips whose answer is nearer to the reference of the clip that was heard than to its own, those that
    are as near to both as halves: a half is chance. None for silence."""
    outputs_file: str | None = None


Failure = Literal["loop", "empty", "other script", "early end", "invented", "unrelated"]
"""In what way an answer is wrong, see `shoal.evaluation.failures`."""


class FailureShare(Record):
    """How often answers are wrong in one way."""

    clips: int
    share: Estimate
    """Of all clips."""
    first: list[str] = Field(default_factory=list)
    """The first of those clips."""


class Cliff(Record):
    """How many layers can go until the error more than doubles, among the plans of one strategy."""

    strategy: str
    holds: int
    """The most layers that a plan below the first that breaks removes; 0: none does."""
    breaks: int | None = None
    """The fewest layers whose removal more than doubles the error; None: no plan does."""
    low: int | None = None
    """The interval of `breaks`; None at the lower end: there is none, at the upper: no plan breaks."""
    high: int | None = None


class SystemScores(SystemRecord):
    """One system on the clips."""

    model_ref: str | None = None
    """The checkpoint, where it is another one than the document's model."""
    fingerprint: str = ""
    """Of that checkpoint's weights; empty in older files."""
    healed: str = ""
    """What that checkpoint was healed by (a heal target), if it was."""
    plan: Plan | None = None
    measures: dict[str, MeasuredScore] = Field(default_factory=dict)
    """What the task is scored by, by name, the headline first."""
    disagreements: int = 0
    """Utterances whose plain word errors kaldialign and jiwer count differently: 0, or one of them is wrong."""
    empty_references: int = 0
    """References without a word once they are normalised, such as `[laughter]`."""
    empty_reference_clips: list[str] = Field(default_factory=list)
    """The first of those clips."""
    words_without_reference: int = 0
    """What was said there; no error rate counts it."""
    truncated: int = 0
    """Outputs cut at the token limit: usually a loop."""
    loops: int | None = None
    """Outputs cut at the token limit, or that repeat themselves; None in files from before they were counted."""
    failures: dict[Failure, FailureShare] | None = None
    """In what way answers are wrong, one kind a clip at most, the commonest first; None where tasks have labels for
    answers, and in files from before they were told."""
    loop_clips: list[str] = Field(default_factory=list)
    """The first of those clips."""
    largest_share: float | None = None
    """Of the errors that the headline counts: what one clip has; None for scores other than error rates."""
    largest_clip: str | None = None
    """That clip."""
    groups: dict[str, dict[str, GroupScore]] = Field(default_factory=dict)
    """Field → value → score; `worst_group` names the field's worst. The field `data` is the data set of a clip, the
    field `domain` pools the sets that are `in` and `out` of domain."""
    worst_group: dict[str, str] = Field(default_factory=dict)
    most_worsened: dict[str, str] = Field(default_factory=dict)
    """Field → the group whose headline score worsened most against its own baseline, in points; none where none did."""
    controls: dict[Control, ControlScore] = Field(default_factory=dict)
    """The same clips with audio that is not theirs; empty where that was not asked for."""
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
    failures: dict[str, Failure] = Field(default_factory=dict)
    """System name → in what way its output is wrong, where it has a name."""


class Scores(Document):
    """Task scores of a model and of plans over it; the first system is the baseline."""

    kind: Literal["scores"] = "scores"
    schema_version: int = 2
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
    cluster: Literal["speaker", "utterance"] = "utterance"
    """What was asked to be drawn."""
    drawn: Drawn | None = None
    """What was drawn; None in files that did not say so."""
    intervals: Literal["percentile", "studentised"] = "percentile"
    """How they were made; with `percentile`, as they once were, p-values are of the same bootstrap and not of sign
    flips."""
    seed: int = 0
    out_of_domain: list[str] = Field(default_factory=list)
    """Data sets that are unlike what the model was trained, or the plans were chosen, on."""
    systems: list[SystemScores]
    cliffs: list[Cliff] = Field(default_factory=list)
    """One for each strategy with two plans or more; empty for scores other than error rates."""
    examples: list[Example] = Field(default_factory=list)

    @property
    def headline(self) -> str:
        """The name of the score that stands for the task; empty where the document has none."""
        return next((name for system in self.systems for name in system.measures), "")

    @property
    def full_depth(self) -> int:
        """Layers of the model that the document's model was made from; its own where it was never pruned."""
        return self.model.depth + len(self.model.removed_layers)

    def headline_of(self, scored: SystemScores | GroupScore) -> MeasuredScore | None:
        """The score that a system or a group is judged by; None where its clips hold nothing to judge by."""
        return scored.measures.get(self.headline)

    @property
    def corrected(self) -> bool:
        """Whether several systems are compared with the baseline: then p-values are shown after Holm's correction."""
        deltas = [score.delta for system in self.systems if (score := self.headline_of(system))]
        return sum(delta is not None and delta.p_holm is not None for delta in deltas) > 1

    @property
    def controlled(self) -> bool:
        """Whether any system was given audio that is not the clips' own."""
        return any(system.controls for system in self.systems)

    @property
    def task_kind(self) -> str:
        """Which of Shoal's own tasks it is or was made from."""
        return str(self.task_settings.get("kind") or self.task)

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Before version 2 the error rates of recognition had fields of their own, and every task had them."""
        kind = (data.get("task_settings") or {}).get("kind") or data.get("task")
        systems = [_system_of_version_1(system, data, kind == "asr") for system in data.get("systems", ())]
        return {**data, "systems": systems}


def _system_of_version_1(old: dict[str, Any], document: dict[str, Any], recognition: bool) -> dict[str, Any]:
    signature = document.get("scorer")
    measures = dict(old.get("measures") or {})
    if recognition:
        rates = {
            "WER": error_rate_of_version_1(old["wer"], old.get("delta_wer"), signature),
            "CER": error_rate_of_version_1(old["cer"], None, signature),
        }
        if old.get("compound_wer") is not None:
            rates["compound WER"] = error_rate_of_version_1(old["compound_wer"], None, signature)
        measures = rates | measures
    errors, edits = old.get("standard_errors") or {}, {"WER": "word_counts", "CER": "char_counts"}
    for name, score in measures.items():
        error = errors.get(name, errors.get(name.lower().replace(" ", "_")))
        measures[name] = {**score, "standard_error": error, "edits": old.get(edits.get(name, ""))}
    groups = {
        field: {value: _group_of_version_1(group, signature, recognition) for value, group in members.items()}
        for field, members in (old.get("groups") or {}).items()
    }
    return {**old, "measures": measures, "groups": groups}


def _group_of_version_1(old: dict[str, Any], signature: Any, recognition: bool) -> dict[str, Any]:
    rate = {"WER": error_rate_of_version_1(old["wer"], old.get("delta"), signature)} if recognition else {}
    return {**old, "measures": rate | (old.get("measures") or {})}


def error_rate_of_version_1(value: Any, delta: Any, signature: Any) -> dict[str, Any]:
    """A rate that had a field of its own, as a measure."""
    return {"value": value, "delta": delta, "higher_is_better": False, "fraction": True, "signature": signature or ""}
