"""Work done ahead of its use, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05
"""How long the thread waits for room before it looks whether anybody still wants what it makes."""


class _End:
    """What ends the queue: the error that stopped the thread, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


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
    return _taken(items, Queue(depth))


def _taken(items: Iterable[T], queue: Queue[T | _End]) -> Iterator[T]:
    stop = threading.Event()
    thread = threading.Thread(target=_make, args=(items, queue, stop), name="shoal-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _make(items: Iterable[T], queue: Queue[T | _End], stop: threading.Event) -> None:
    end = _End(None)
    try:
        for item in items:
            if not _put(queue, item, stop):
                break
    except BaseException as error:  # whatever it is, it belongs to whoever asked for the items
        end = _End(error)
    finally:
        _close(items)
        _put(queue, end, stop)


def _put(queue: Queue[T | _End], item: T | _End, stop: threading.Event) -> bool:
    """Put `item` as soon as there is room; False if nobody wants it any more."""
    while not stop.is_set():
        try:
            queue.put(item, timeout=POLL_SECONDS)
        except Full:
            continue
        return True
    _empty(queue)
    return False


def _empty(queue: Queue[T | _End]) -> None:
    """Let go of what waits."""
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return


def _close(items: object) -> None:
    """Let a generator that is given up clean up in the thread it ran in."""
    close = getattr(items, "close", None)
    if callable(close):
        close()
