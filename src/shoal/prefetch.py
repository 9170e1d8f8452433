"""Work done ahead of its use, in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], *, depth: int) -> Iterator[T]:
    """The same items in the same order; a thread makes up to `depth` of them before they are asked for.

    The thread ends with the items, with an error in them (raised here, where the item would have come), or when
    this iterator is closed or given up; closing waits for the thread, so nothing of `items` runs afterwards.

    Args:
        items: iterated in the thread.
        depth: most items that wait; one more may be in the making.

    Raises:
        ValueError: a depth below 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1: {depth}")
    return _in_thread(iter(items), depth)


def _in_thread(items: Iterator[T], depth: int) -> Iterator[T]:
    end: Any = object()
    with ThreadPoolExecutor(1, "shoal-prefetch") as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth + 1))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item
        finally:
            for waiting in coming:
                waiting.cancel()
            # A generator that is given up cleans up in the thread it ran in.
            if (close := getattr(items, "close", None)) is not None:
                thread.submit(close).result()
