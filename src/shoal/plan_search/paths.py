"""Paths: for n = 1, 2, … the plan that removes n layers, one after the other as they are asked for.

A path has no audit to choose from. It is given a function of any sets of layers, and measures again at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from shoal.plan_search.settings import SearchSettings
from shoal.schema import Estimate
from shoal.selection.strategy import Choice
from shoal.statistics import Floats
from shoal.terms import Candidate

Measure = Callable[[Sequence[Candidate]], Floats]
"""What is lost without each of C candidates, (C,), the less the better; NaN for one that must not be chosen."""
Path = Iterator[tuple[Candidate, float]]
"""Plans of n = 1, 2, … layers, each with its measured value."""


def choices(settings: SearchSettings, measure: Measure, depth: int) -> Iterator[Choice]:
    """Plans of 1, 2, … layers of a decoder of `depth`, by the strategy of `settings`; one layer stays in any case.

    A number of layers for which no plan has a value is left out.
    """
    removable = removable_layers(depth, allow_last=settings.allow_last)
    most = min(len(removable), depth - 1)
    if settings.strategy == "lowest":
        yield from lowest(measure, removable, most)
        return
    if settings.strategy == "contiguous":
        path = contiguous(measure, removable, most)
    else:
        path = beam(measure, removable, most, width=1 if settings.strategy == "greedy" else settings.width)
    for layers, value in path:
        yield Choice(list(layers), Estimate(value=value))


def removable_layers(depth: int, *, allow_last: bool) -> range:
    """The layers that may go."""
    return range(depth if allow_last else depth - 1)


def contiguous(measure: Measure, removable: Sequence[int], most: int) -> Path:
    """For n = 1 … `most` the block of n layers with the lowest value; sizes without a usable block are left out."""
    for size in range(1, most + 1):
        blocks = [tuple(removable[first : first + size]) for first in range(len(removable) - size + 1)]
        yield from ranked(measure, blocks)[:1]


def lowest(measure: Measure, removable: Sequence[int], most: int) -> Iterator[Choice]:
    """For n = 1 … the n layers with the lowest values, each measured alone."""
    order = ranked(measure, [(layer,) for layer in removable])[:most]
    for count in range(1, len(order) + 1):
        layers = sorted(layer for (layer,), _ in order[:count])
        yield Choice(layers, Estimate(value=order[0][1]) if count == 1 else None)


def beam(measure: Measure, removable: Sequence[int], most: int, *, width: int) -> Path:
    """For n = 1 … `most` the best set of n layers that was found by growing the best sets by one layer at a time.

    It need not contain the one before. With a width of 1 it does, which is greedy removal (SLEB, arXiv 2402.09025);
    with the width of all sets the choice is exhaustive.

    Args:
        measure: what is lost without some layers.
        removable: the layers that may go.
        most: how many may go.
        width: sets that are kept at every step, w.

    Yields:
        The layers, ascending, and their value; it ends early where no larger set has a value.
    """
    kept: list[Candidate] = [()]
    for _ in range(most):
        best = ranked(measure, grown(kept, removable))[:width]
        if not best:
            return
        yield best[0]
        kept = [layers for layers, _ in best]


def ranked(measure: Measure, candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    """The candidates that have a finite value, the lowest first, among equals the one with the earlier layers."""
    if not candidates:
        return []
    values = zip(candidates, measure(candidates).tolist(), strict=True)
    finite = ((layers, value) for layers, value in values if math.isfinite(value))
    return sorted(finite, key=lambda item: (item[1], item[0]))


def grown(sets: Iterable[Candidate], removable: Sequence[int]) -> list[Candidate]:
    """Every set with one more layer, each result once."""
    larger = (tuple(sorted((*gone, layer))) for gone in sets for layer in removable if layer not in gone)
    return list(dict.fromkeys(larger))
