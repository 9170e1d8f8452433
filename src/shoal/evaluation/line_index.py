"""Where each clip's line stands in a file of outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FRESH = 1024
"""So many new lines, and an eighth of those that are sorted, are kept in a dictionary before they are sorted in."""


class LinePosition(NamedTuple):
    """Where a line stands (bytes, its end of line included), and what question it answers (a hash)."""

    start: int
    length: int
    question: int


class LineIndex:
    """Key → position, 28 bytes each: arrays in the order of the keys, and a dictionary of what came lately.

    Args:
        entries: (key, position) in the order of the lines; of several with one key the last counts. Keys and questions
            are signed 64-bit numbers.
    """

    def __init__(self, entries: Iterable[tuple[int, LinePosition]] = ()) -> None:
        self._sort(np.fromiter(((key, *position) for key, position in entries), _ENTRY))

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh)

    def find(self, key: int) -> LinePosition | None:
        """Where the line of `key` stands."""
        if key in self._fresh:
            return self._fresh[key]
        at = self._at(key)
        return None if at is None else LinePosition(*self._positions[at].item())

    def put(self, key: int, position: LinePosition) -> None:
        """A new line; it takes the place of an older one for the same key."""
        at = self._at(key)
        if at is not None:
            self._positions[at] = position
            return
        self._fresh[key] = position
        if len(self._fresh) > FRESH + len(self._keys) // 8:
            self._sort(self._all())

    def in_order(self) -> Iterator[tuple[int, LinePosition]]:
        """All, in the order of their lines."""
        entries = self._all()
        for at in np.argsort(entries["start"], kind="stable"):
            key, *position = entries[at].item()
            yield key, LinePosition(*position)

    def _at(self, key: int) -> int | None:
        at = int(self._keys.searchsorted(key))
        return at if at < len(self._keys) and self._keys[at] == key else None

    def _all(self) -> npt.NDArray[np.void]:
        entries = np.empty(len(self), _ENTRY)
        entries["key"][: len(self._keys)] = self._keys
        for name in LinePosition._fields:
            entries[name][: len(self._keys)] = self._positions[name]
        for at, (key, position) in enumerate(self._fresh.items(), len(self._keys)):
            entries[at] = (key, *position)
        return entries

    def _sort(self, entries: npt.NDArray[np.void]) -> None:
        entries = entries[np.argsort(entries["key"], kind="stable")]
        last = np.append(entries["key"][1:] != entries["key"][:-1], True) if len(entries) else slice(0)
        entries = entries[last]
        self._keys = entries["key"].copy()
        self._positions = np.empty(len(entries), _POSITION)
        for name in LinePosition._fields:
            self._positions[name] = entries[name]
        self._fresh: dict[int, LinePosition] = {}


_POSITION = np.dtype([("start", np.int64), ("length", np.uint32), ("question", np.int64)])
_ENTRY = np.dtype([("key", np.int64), *((name, _POSITION[name]) for name in LinePosition._fields)])
