"""Limits a score must keep: `evaluate --max-wer`, `--max-wer-increase`."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.schema import Scores, SystemScores


def broken_limits(
    scores: Scores, *, max_wer: float | None = None, max_wer_increase: float | None = None
) -> list[str]:
    """One line for every limit that does not hold; empty if all do.

    With several systems the first is the baseline and the limits are for the others.

    Args:
        scores: what was measured.
        max_wer: highest WER, 0.1 for 10 %.
        max_wer_increase: highest increase relative to the baseline, 0.25 for a quarter more errors.

    Raises:
        UsageError: an increase is limited but there is one system only.
    """
    if max_wer_increase is not None and len(scores.systems) < 2:
        raise UsageError(
            "there is nothing to compare with", where="--max-wer-increase", fix="add --plan or --against"
        )
    judged = scores.systems[1:] or scores.systems
    lines = []
    for system in judged:
        if max_wer is not None and system.wer.value > max_wer:
            lines.append(f"{system.name}: WER {system.wer.value:.2%} is above {max_wer:.2%}")
        if max_wer_increase is not None and not _increase_within(system, max_wer_increase):
            lines.append(f"{system.name}: {_increase(system)} is above {max_wer_increase:+.1%}")
    return lines


def _increase_within(system: SystemScores, limit: float) -> bool:
    delta = system.delta_wer
    if delta is None or delta.relative is None:
        return delta is None or delta.absolute.value <= 0
    return delta.relative.value <= limit


def _increase(system: SystemScores) -> str:
    delta = system.delta_wer
    if delta is None or delta.relative is None:
        return "a WER increase over a baseline without errors"
    relative = delta.relative
    spread = (
        ""
        if relative.low is None or relative.high is None
        else f" [{relative.low:+.1%}, {relative.high:+.1%}]"
    )
    return f"WER increase {relative.value:+.1%}{spread}"
