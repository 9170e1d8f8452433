"""Scores as a report writes them, whichever way they run and whatever they are counted in."""

from __future__ import annotations

from shoal import wording
from shoal.report.units import number_of
from shoal.schema import Delta, MeasuredScore, SystemScores

TOLERANCE = 0.25
"""Relative loss that counts as affordable: for WER the stop rule of arXiv 2603.05121, kept for other scores."""


def value_text(score: MeasuredScore | None) -> str:
    """The value with its interval, in per cent where 1 is a hundred; a dash where there is none."""
    if score is None:
        return "–"
    if score.fraction:
        return wording.percent_estimate(score.value)
    return wording.with_interval(score.value, number_of(score.value))


def plain_value(score: MeasuredScore) -> str:
    """The value without its interval."""
    if score.fraction:
        return wording.percent(score.value.value)
    return number_of(score.value)(score.value.value)


def change_text(score: MeasuredScore | None) -> str:
    """The absolute change from the baseline, see `delta_text`."""
    return "–" if score is None else delta_text(score, score.delta)


def delta_text(score: MeasuredScore, delta: Delta | None) -> str:
    """A difference of a score with its interval, in points but for losses; a dash where there is none."""
    if delta is None:
        return "–"
    absolute = delta.absolute
    if score.fraction:
        return wording.absolute_change(absolute)
    unit = " points" if score.higher_is_better else ""
    return wording.with_interval(absolute, number_of(absolute, sign=True), unit)


def relative_text(score: MeasuredScore | None) -> str:
    """The relative change as it is written: minus for a fall, whichever way is better; a dash where there is none."""
    relative = score.delta.relative if score and score.delta else None
    return wording.relative_change(relative) if relative else "–"


def removed_words(system: SystemScores) -> str:
    """The layers, or what of them, that a system lacks."""
    plan = system.plan
    return wording.removed_names(plan) if plan and plan.layers else wording.layer_names(system.removed)


def tolerance_words(score: MeasuredScore) -> str:
    """`+25 %`, or `−25 %` for a score that falls when it gets worse."""
    return f"{'−' if score.higher_is_better else '+'}{wording.percent(TOLERANCE, 0)}"
