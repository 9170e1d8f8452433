"""A path: for n = 1, 2, … the plan that removes n layers, each measured by what the task loses without them.

A strategy that measures again at every step has no audit to choose from. It is given a function instead, and gives its
plans one by one, so that nothing is measured for depths that nobody asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from shoal.schema.words import Candidate
from shoal.statistics import Floats

Measure = Callable[[Sequence[Candidate]], Floats]
"""What is lost without each of C candidates, (C,), the less the better; NaN for one that must not be chosen."""
Path = Iterator[tuple[Candidate, float]]
"""Plans of n = 1, 2, … layers, each with its measured value."""


def ranked(measure: Measure, candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    """The candidates that have a finite value, the lowest first, among equals the one with the earlier layers."""
    if not candidates:
        return []
    values = zip(candidates, measure(candidates).tolist(), strict=True)
    known = [(layers, value) for layers, value in values if math.isfinite(value)]
    return sorted(known, key=lambda item: (item[1], item[0]))


def grown(sets: Iterable[Candidate], removable: Sequence[int]) -> list[Candidate]:
    """Every set with one more layer, each result once."""
    larger = (tuple(sorted((*gone, layer))) for gone in sets for layer in removable if layer not in gone)
    return list(dict.fromkeys(larger))
