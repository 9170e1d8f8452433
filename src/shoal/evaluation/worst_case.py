"""What a clip that nobody has seen can cost: a model that loops is stopped by the token limit alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shoal.statistics.arrays import Floats, Numbers

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score


def longest_answer(limits: Sequence[int], seconds: Sequence[float], tokens: float) -> float:
    """How many times as long as an average answer the token limit lets one be.

    Args:
        limits: token limits of U clips. Their mean is weighed by duration, since a loop can begin at any second.
        seconds: durations of the clips; all 0 where nothing is heard.
        tokens: that the baseline says to all of these clips.
    """
    weights = np.asarray(seconds) if any(seconds) else np.ones(len(limits))
    return float(np.average(limits, weights=weights)) / max(1.0, tokens / len(limits))


def unseen_pair(score: Score, system: Numbers, baseline: Numbers, longest: float) -> Floats:
    """One more clip (2 · S,) on which all goes wrong for a system, while the baseline does as on average.

    Args:
        score: what is counted.
        system: statistics (U, S).
        baseline: statistics (U, S) on the same clips.
        longest: see `longest_answer`.
    """
    worst = score.worst_clip(system.astype(np.float64), longest)
    return np.concatenate([worst, baseline.mean(axis=0, dtype=np.float64)])


def relative_worsening(score: Score) -> Callable[[Floats], Floats]:
    """How much worse than the baseline, relative to it, from sums (..., 2 · S) of both; infinite or NaN beside 0."""
    sign = -1 if score.higher_is_better else 1

    def change(sums: Floats) -> Floats:
        system, baseline = (score.value(half) for half in np.split(sums, 2, axis=-1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sign * (system - baseline) / baseline)

    return change
