"""Intervals, tests and rank correlation; what each means, and when not to believe it, is in docs/statistics.md."""

from shoal.statistics.arrays import Bools, Floats, Ints
from shoal.statistics.confidence_set import confidence_set
from shoal.statistics.cross_fitting import disattenuated, halves_of, held_out, reliability
from shoal.statistics.ranks import ranks, spearman
from shoal.statistics.resampling import ROWS, Resampler, Units, make_resampler
from shoal.statistics.studentised import Resampled, interval, mean_bounds
from shoal.statistics.unseen import UnseenDraws

__all__ = [
    "ROWS",
    "Bools",
    "Floats",
    "Ints",
    "Resampled",
    "Resampler",
    "Units",
    "UnseenDraws",
    "confidence_set",
    "disattenuated",
    "halves_of",
    "held_out",
    "interval",
    "make_resampler",
    "mean_bounds",
    "ranks",
    "reliability",
    "spearman",
]
