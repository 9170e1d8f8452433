"""Greedy removal: the least harmful layer goes, the rest is measured again without it, and so on.

SLEB (arXiv 2402.09025) removes layers of a text LLM in this way. The layers need not lie together.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.selection import beam
from shoal.selection.path import Measure, Path


def path(measure: Measure, removable: Sequence[int], most: int) -> Path:
    """For n = 1 … `most` the layers of the step before and one more; see `shoal.selection.beam.path`."""
    return beam.path(measure, removable, most, width=1)
