"""What only a full run does: `SHOAL_FULL=1`, as CI sets it, or `make families`.

By default every class and every way is shown once; a full run shows every class in every way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
FULL = os.environ.get("SHOAL_FULL", "0") != "0"


def examples(count: int) -> int:
    """How many random examples hypothesis draws."""
    return count if FULL else max(1, count // 4)


def in_turn(names: Sequence[str], ways: Sequence[T]) -> dict[str, tuple[T, ...]]:
    """Name → the ways to show it in: all of them in a full run, else one of them in turn."""
    return {name: tuple(ways) if FULL else (ways[place % len(ways)],) for place, name in enumerate(names)}
