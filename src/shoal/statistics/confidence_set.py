"""Which of many candidates may be the best, given that their means are measured on the same clusters.

For candidate i the hypothesis "no other has a lower mean" is tested by the largest studentised difference to another,
max_j (mean_i - mean_j) / error_ij, against the same maximum of centred bootstrap differences: multiple comparisons with
the best (Hsu 1981, Annals of Statistics 9, 1026-1034) with the resampled critical values of the model confidence set
(Hansen, Lunde & Nason 2011, Econometrica 79, 453-497). Every difference of a replicate is divided by its own standard
error: with one error for all replicates a set of nominally 95 % holds the best in 88 % of samples of 20 clips.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from shoal.statistics.arrays import Bools, Floats, Numbers
from shoal.statistics.resampling import Resampler
from shoal.statistics.studentised import studentised_means

DECIDED = 1e-5
"""A pair whose difference is this unlikely without one (t test, one-sided) is decided without resampling."""


def confidence_set(sums: Numbers, counts: Numbers, resampler: Resampler, level: float) -> Bools:
    """Which candidates are not told from the best, which is the one with the lowest mean: (C,).

    Args:
        sums: (U, C), what each utterance adds to each candidate.
        counts: (U,), how many positions it adds to all of them.
        resampler: of the utterances; two clusters or more.
        level: with which the set holds the true best.
    """
    resampler = resampler.coarse
    parts, sizes = resampler.by_cluster(sums), resampler.by_cluster(counts[:, None])
    distances = _distances(parts, sizes)
    limit = stdtrit(len(parts) - 1, 1 - DECIDED)
    may_be_best = [
        _may_be_best(candidate, parts, sizes, row, limit, resampler, level) for candidate, row in enumerate(distances)
    ]
    return np.array(may_be_best)


def _distances(parts: Floats, sizes: Floats) -> Floats:
    """(C, C): mean_i - mean_j over its standard error; 0 between equals."""
    means = parts.sum(axis=0) / sizes.sum()
    influence = (parts - means * sizes) / sizes.sum()
    squares = np.array([((influence - column[:, None]) ** 2).sum(axis=0) for column in influence.T])
    errors = np.sqrt(squares * len(parts) / (len(parts) - 1))
    apart = means[:, None] - means
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(apart == 0, 0, apart / errors)


def _may_be_best(
    candidate: int, parts: Floats, sizes: Floats, distances: Floats, limit: float, resampler: Resampler, level: float
) -> bool:
    """Whether no rival is better by more than chance. A rival that is worse beyond doubt cannot be."""
    if distances.max() > limit:
        return False
    rivals = np.flatnonzero(distances > -limit)
    rivals = rivals[rivals != candidate]
    if not len(rivals):
        return True
    # The critical value of the strongest alone is at most that of all; it spares most of the work between near equals.
    for asked in (rivals[[distances[rivals].argmax()]], rivals):
        drawn = studentised_means(parts[:, [candidate]] - parts[:, asked], sizes, resampler).distances
        if distances[asked].max() <= np.nanquantile(drawn.max(axis=1), level):
            return True
    return False
