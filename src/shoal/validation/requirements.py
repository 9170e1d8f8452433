"""What a checkpoint must keep, and whether what was measured shows that it does.

A requirement is judged on the point value, or *confidently*: then the bound of the interval on the limit's side must
meet it, too. At level 0.95 that is a one-sided bound at 97.5 %. Where the point value meets a requirement and the bound
does not, the measurement cannot tell. What was not measured does not hold either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shoal.cards.measured import Measured
from shoal.data_names import data_name
from shoal.errors import UsageError
from shoal.schema import Bench, Delta, Estimate, Finding, MeasuredScore, SystemBench
from shoal.schema.validation import Verdict
from shoal.score_tables import removed_words
from shoal.settings import one_or_more
from shoal.wording import plain, plain_score

FEWEST_GROUP_CLIPS = 20
"""A group with fewer clips is not judged, in documents that do not say which groups are large enough."""
NOT_MEASURED = "no result"


@dataclass(frozen=True)
class Evidence:
    """What was measured of one checkpoint, and how it is judged."""

    measured: Sequence[Measured] = ()
    benches: Sequence[tuple[Bench, SystemBench]] = ()
    weight_bytes: int | None = None
    """Of the files that hold its weights."""
    confident: bool = True
    """Whether the interval's bound must meet a requirement, too."""


@dataclass(frozen=True)
class Requirement(ABC):
    """One thing to keep; `text` is how it is called."""

    text: str

    @abstractmethod
    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """One for each document that measured it."""

    def judge(self, evidence: Evidence) -> list[Finding]:
        """The findings; one that says so if nothing was measured."""
        findings = list(self.findings(evidence))
        return findings or [Finding(requirement=self.text, verdict="not measured", reason=self.missing(evidence))]

    def missing(self, evidence: Evidence) -> str:
        """Why there is no finding."""
        del evidence
        return NOT_MEASURED

    def finding(
        self, where: str, value: Estimate, shown: str, *, limit: float, at_most: bool, confident: bool
    ) -> Finding:
        """The judgement of one number."""
        verdict, reason = _verdict(value, limit, at_most=at_most, confident=confident)
        return Finding(requirement=self.text, verdict=verdict, where=where, measured=value, shown=shown, reason=reason)


@dataclass(frozen=True)
class ScoreLimit(Requirement):
    """A score that must not be above, or below, a limit."""

    score: str
    limit: float
    """On the score's own scale: a fraction, or 0-100."""
    at_most: bool
    task: str | None = None
    """Only on this task; None for every one that has the score."""
    percent: bool = False
    """Whether the limit was written in per cent."""
    points: bool = False
    """Whether the limit is 1 or more and not in per cent, which is no limit for a fraction."""

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """One for each task and data set with this score."""
        for measured, score in _scores(evidence, self):
            limit = self.limit / 100 if self.percent and score.fraction else self.limit
            shown = plain_score(score.value, fraction=score.fraction)
            yield self.finding(
                _where(measured), score.value, shown, limit=limit, at_most=self.at_most, confident=evidence.confident
            )


@dataclass(frozen=True)
class ChangeLimit(Requirement):
    """A change from the baseline that must not be above, or below, a limit."""

    score: str
    limit: float
    relative: bool
    """Whether the limit is a share of the baseline's score; else it is in the score's unit."""
    drop: bool
    """Whether falling counts up."""
    at_most: bool = True
    task: str | None = None
    points: bool = False
    """As for `ScoreLimit`."""

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """One for each task and data set on which both were scored."""
        for measured, score in _scores(evidence, self):
            if score.delta is not None:
                yield _change(self, _where(measured), score, score.delta, drop=self.drop, confident=evidence.confident)

    def missing(self, evidence: Evidence) -> str:
        """Tells a score without a baseline from no score."""
        alone = any(True for _ in _scores(evidence, self))
        return f"{NOT_MEASURED}: no baseline was scored beside it" if alone else NOT_MEASURED


@dataclass(frozen=True)
class GroupChangeLimit(Requirement):
    """How much worse any group of clips may get in its headline score, relative to the same group's baseline."""

    limit: float
    relative: bool = field(default=True, init=False)
    at_most: bool = field(default=True, init=False)

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """For each field of each document the group that is worst off."""
        for measured in evidence.measured:
            for name in measured.system.groups:
                findings = list(self._of_field(measured, name, evidence.confident))
                if findings:
                    yield max(findings, key=lambda finding: _severity(finding, evidence.confident))

    def _of_field(self, measured: Measured, name: str, confident: bool) -> Iterator[Finding]:
        for value, group in measured.system.groups[name].items():
            score = measured.scores.headline_of(group)
            if score is None or score.delta is None or not _is_large(score.delta, group.clips):
                continue
            where = f"{_where(measured)}, {name} {value} ({group.clips} clips), {measured.scores.headline}"
            yield _change(self, where, score, score.delta, drop=score.higher_is_better, confident=confident)


@dataclass(frozen=True)
class SpeedLimit(Requirement):
    """How much of the unpruned model's time a clip may take, or how many times faster it must be."""

    limit: float
    speedup: bool
    """Whether the limit is how many times faster; else it is the share of the time."""

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """One for each bench that timed both."""
        for bench, system in evidence.benches:
            ratio = system.total_ratio
            if ratio is not None:
                value = _inverse(ratio) if self.speedup else ratio
                where, shown, at_most = _where_timed(bench), plain(value, ".3f"), not self.speedup
                yield self.finding(where, value, shown, limit=self.limit, at_most=at_most, confident=evidence.confident)

    def missing(self, evidence: Evidence) -> str:
        """Tells a model timed alone from no bench."""
        alone = "the unpruned model was not timed beside it" if evidence.benches else "no bench"
        return f"{NOT_MEASURED}: {alone}"


@dataclass(frozen=True)
class SizeLimit(Requirement):
    """How many bytes its weights may take on the disk."""

    limit: float

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """From the files if there are some, else from each bench; there is nothing to be unsure of."""
        sizes = [(_where_timed(bench), system.checkpoint_bytes) for bench, system in evidence.benches]
        if evidence.weight_bytes is not None:
            sizes = [("its files", evidence.weight_bytes)]
        for where, size in sizes:
            value, shown = Estimate(value=size), f"{size / 1e6:,.1f} MB"
            yield self.finding(where, value, shown, limit=self.limit, at_most=True, confident=False)


@dataclass(frozen=True)
class TaskTested(Requirement):
    """A task that there must be a result for, whatever it says."""

    task: str

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """One for each result."""
        for measured in evidence.measured:
            if self.task in (measured.task, measured.kind):
                finding = Finding(requirement=self.text, verdict="holds", where=_where(measured))
                if score := measured.scores.headline_of(measured.system):
                    finding.measured = score.value
                    finding.shown = f"{measured.scores.headline} {plain_score(score.value, fraction=score.fraction)}"
                yield finding


def _scores(evidence: Evidence, requirement: ScoreLimit | ChangeLimit) -> Iterator[tuple[Measured, MeasuredScore]]:
    """What the requirement is about.

    Raises:
        UsageError: the score is a fraction, and the limit is none.
    """
    for measured in evidence.measured:
        if requirement.task in (None, measured.task, measured.kind):
            for name, score in measured.system.measures.items():
                if name.lower() != requirement.score.lower():
                    continue
                if score.fraction and requirement.points:
                    raise UsageError(
                        f"{requirement.text!r}: {name} is a share",
                        where="--require",
                        fix=one_or_more(requirement.limit),
                    )
                yield measured, score


def _change(
    requirement: ChangeLimit | GroupChangeLimit,
    where: str,
    score: MeasuredScore,
    delta: Delta,
    *,
    drop: bool,
    confident: bool,
) -> Finding:
    """Of a change, which is counted up in the direction that the requirement names."""
    change, limit, fraction = delta.absolute, requirement.limit, score.fraction
    if requirement.relative and delta.relative is not None:
        change, fraction = delta.relative, True
    elif requirement.relative:
        # The baseline is 0: any change for the worse is more than any share of it.
        limit = 0.0
    counted = change.negated() if drop else change
    shown = plain_score(counted, "+.1f", fraction=fraction)
    return requirement.finding(where, counted, shown, limit=limit, at_most=requirement.at_most, confident=confident)


def _verdict(value: Estimate, limit: float, *, at_most: bool, confident: bool) -> tuple[Verdict, str]:
    if value.value > limit if at_most else value.value < limit:
        return "broken", f"it is {'above' if at_most else 'below'} the limit"
    bound = value.high if at_most else value.low
    if not confident:
        return "holds", ""
    if bound is None:
        return "cannot tell", "there is no interval"
    if bound > limit if at_most else bound < limit:
        return "cannot tell", f"the interval reaches {'above' if at_most else 'below'} the limit"
    return "holds", ""


def _is_large(delta: Delta, clips: int) -> bool:
    """Whether a group is large enough: those that are have a p-value after Holm's correction."""
    return delta.p_holm is not None or (delta.p_value is not None and clips >= FEWEST_GROUP_CLIPS)


def _severity(finding: Finding, confident: bool) -> tuple[int, float]:
    """By verdict first, then by how far it reaches."""
    value = finding.measured
    assert value is not None
    reach = value.high if confident and value.high is not None else value.value
    return ("holds", "cannot tell", "broken").index(finding.verdict), reach


def _inverse(ratio: Estimate) -> Estimate:
    low, high = (None if bound is None else 1 / bound for bound in (ratio.high, ratio.low))
    return ratio.model_copy(update={"value": 1 / ratio.value, "low": low, "high": high})


def _where(measured: Measured) -> str:
    system = measured.system
    lacks = f" without {removed_words(system)}" if system.missing else ""
    return f"{measured.task} on {data_name(measured.data)}, {system.name}{lacks}"


def _where_timed(bench: Bench) -> str:
    return f"bench on {data_name(bench.data)}, {bench.provenance.device}"
