"""The path of plans that each strategy gives, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shoal.plan_search.settings import SearchSettings
from shoal.schema import Estimate
from shoal.selection import beam, greedy
from shoal.selection.path import Measure, Path, ranked
from shoal.selection.strategy import Choice


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
    elif settings.strategy == "greedy":
        path = greedy.path(measure, removable, most)
    else:
        path = beam.path(measure, removable, most, width=settings.width)
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
