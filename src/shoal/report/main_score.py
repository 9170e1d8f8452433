"""The score that a task is judged by: WER of recognition, the first measure of any other task."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import wording
from shoal.report.units import number_of, score_text
from shoal.schema import Delta, Estimate, GroupScore, Scores, SystemScores

RECOGNITION = "asr"
TOLERANCE = 0.25
"""Relative loss that counts as affordable: for WER the stop rule of arXiv 2603.05121, kept for other scores."""


@dataclass(frozen=True)
class MainScore:
    """One system's score.

    Attributes:
        name: such as `WER` or `BLEU`.
        value: the score itself.
        delta: from the baseline; None for the baseline.
        higher_is_better: whether a fall is what pruning costs.
        fraction: whether 1 is a hundred per cent.
    """

    name: str
    value: Estimate
    delta: Delta | None
    higher_is_better: bool = False
    fraction: bool = True

    @property
    def text(self) -> str:
        """The value with its interval."""
        return score_text(self.name, self.value, fraction=self.fraction)

    @property
    def worsening(self) -> Estimate | None:
        """Relative change, turned so that positive is worse; None where it is not known."""
        relative = self.delta.relative if self.delta else None
        return turned(relative) if relative and self.higher_is_better else relative


def main_score(scores: Scores, system: SystemScores) -> MainScore | None:
    """What `system` is judged by; None for another task than recognition without any measure."""
    if scores.task == RECOGNITION:
        return MainScore("WER", system.wer, system.delta_wer)
    for name, found in system.measures.items():
        return MainScore(name, found.value, found.delta, found.higher_is_better, found.fraction)
    return None


def group_score(scores: Scores, group: GroupScore) -> MainScore | None:
    """What a group of clips is judged by; None where it was not scored by that."""
    if scores.task == RECOGNITION:
        return MainScore("WER", group.wer, group.delta)
    for name, found in group.measures.items():
        return MainScore(name, found.value, found.delta, found.higher_is_better, found.fraction)
    return None


def change_text(score: MainScore | None) -> str:
    """The absolute change in points, with its interval; a dash where there is none."""
    if score is None or score.delta is None:
        return "–"
    absolute = score.delta.absolute
    if score.fraction:
        return wording.absolute_change(absolute)
    return wording.with_interval(absolute, number_of(absolute, sign=True), " points")


def turned(estimate: Estimate) -> Estimate:
    """The estimate with its sign, and so its bounds, turned."""
    low, high = (None if bound is None else -bound for bound in (estimate.high, estimate.low))
    return estimate.model_copy(update={"value": -estimate.value, "low": low, "high": high})
