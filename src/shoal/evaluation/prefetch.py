"""Work done ahead of its use, in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Comes where the items end."""


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
    return _taken(iter(items), depth)


def _taken(items: Iterator[T], depth: int) -> Iterator[T]:
    with ThreadPoolExecutor(1, initializer=_name_thread) as thread:
        ahead = deque(thread.submit(next, items, _End()) for _ in range(depth + 1))
        try:
            while not isinstance(item := ahead.popleft().result(), _End):
                ahead.append(thread.submit(next, items, _End()))
                yield item
        finally:
            for future in ahead:
                future.cancel()
            # A generator that is given up cleans up in the thread it ran in.
            if close := getattr(items, "close", None):
                thread.submit(close).result()


def _name_thread() -> None:
    threading.current_thread().name = "shoal-ahead"
