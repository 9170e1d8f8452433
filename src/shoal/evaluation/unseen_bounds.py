"""How bad the headline may be on other clips: one-sided bounds that count one loop which no clip has shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shoal.evaluation.significance import Function, PairedBootstrap
from shoal.evaluation.utterance_counts import UtteranceCounts
from shoal.evaluation.worst_case import longest_answer, relative_worsening, unseen_pair
from shoal.schema import MeasuredScore
from shoal.statistics import UnseenDraws
from shoal.statistics.arrays import Floats

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score

DRAWS = 4_999
"""The level of a bound is off by 0.3 % (standard deviation)."""


def add_bounds(
    systems: Sequence[Mapping[str, MeasuredScore]],
    score: Score,
    counts: Sequence[UtteranceCounts],
    limits: tuple[Sequence[int], Sequence[float]],
    bootstrap: PairedBootstrap,
) -> None:
    """Add the bound of `score`, and that of how much worse than the first it is, to every system.

    Where nothing is generated, nothing loops, and there is no bound.

    Args:
        systems: by name what they were scored by.
        score: which of it.
        counts: of every system, the baseline first.
        limits: token limits and durations of the clips.
        bootstrap: whose clusters are drawn, at most 256 groups of them, and whose level the bounds have.
    """
    tokens = counts[0].totals["generated_tokens"]
    if not tokens:
        return
    longest = longest_answer(*limits, tokens)
    statistics = [of_system.statistics[score.name] for of_system in counts]
    clusters = [bootstrap.resampler.coarse.by_cluster(of_system) for of_system in statistics]
    for measures, of_system, parts in zip(systems, statistics, clusters, strict=True):
        measured, pair = measures[score.name], unseen_pair(score, of_system, statistics[0], longest)
        value, relative = _worse(score), relative_worsening(score)
        bound = _upper(value, parts, pair[: parts.shape[1]], bootstrap)
        measured.bound_with_unseen = None if bound is None else measured.sign * bound
        if measured.delta is not None:
            measured.delta.relative_bound_with_unseen = _upper(
                relative, np.hstack([parts, clusters[0]]), pair, bootstrap
            )


def _upper(function: Function, clusters: Floats, unseen: Floats, bootstrap: PairedBootstrap) -> float | None:
    drawn = UnseenDraws.of(function, clusters, unseen, draws=DRAWS, seed=bootstrap.seed)
    bound = drawn.upper(bootstrap.level)
    return bound if np.isfinite(bound) else None


def _worse(score: Score) -> Function:
    """The score, turned so that more is worse."""
    sign = -1 if score.higher_is_better else 1
    return lambda sums: sign * score.value(sums)
