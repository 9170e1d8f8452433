"""Ids: unique within a data set, the same on every machine."""

from __future__ import annotations

import math
import posixpath
from array import array
from collections import Counter
from collections.abc import Iterator

from shoal.data.checks import audio_path
from shoal.data.sources import RawRow
from shoal.data.texts import Texts
from shoal.errors import ManifestError


class Ids:
    """Gives the rows of a data set their ids, source after source.

    A row's own `id` is kept (prefixed by the manifest's name if an earlier manifest used it too). Others are
    called `<manifest>:<audio stem>`, with `@offset` and then `#2`, `#3` … where that is not unique.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def of(self, source: SourceNames) -> Iterator[str]:
        """The ids of the rows of one source that are kept, in order; all its rows must have been added."""
        for name, offset, kept in source.rows():
            if offset is None:  # its own
                row_id = name if name not in self._used else self._numbered(f"{source.label}:{name}")
            else:
                at = f"@{offset:g}" if source.stems[name] > 1 and not math.isnan(offset) else ""
                row_id = self._numbered(f"{source.label}:{name}{at}")
            self._used.add(row_id)
            if kept:
                yield row_id

    def _numbered(self, row_id: str) -> str:
        if row_id not in self._used:
            return row_id
        number = self._next.get(row_id, 2)
        while f"{row_id}#{number}" in self._used:
            number += 1
        self._next[row_id] = number + 1
        return f"{row_id}#{number}"


class SourceNames:
    """What the rows of one source are called, before it is known which names occur more than once.

    Args:
        label: short name of the source.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.stems: Counter[str] = Counter()
        """How often each audio file name stands in the source."""
        self._lines: dict[str, int] = {}
        self._names, self._offsets = Texts(), array("d")
        self._has_own, self._kept = bytearray(), bytearray()

    def add(self, raw: RawRow) -> None:
        """Take in the next row; it is not kept unless `keep` is called.

        Raises:
            ManifestError: its own id is not a name or stands in the source already, or it has neither id nor audio.
        """
        stem = _stem(raw.fields.get("audio_filepath"))
        self.stems[stem] += 1
        own = self._own(raw)
        if own is None:
            try:
                audio_path(raw.fields)
            except ValueError as error:
                raise ManifestError(str(error)) from None
        self._names.append(stem if own is None else own)
        self._offsets.append(_number(raw.fields.get("offset")))
        self._has_own.append(own is not None)
        self._kept.append(False)

    def keep(self) -> None:
        """The row that was added last belongs to the data set."""
        self._kept[-1] = True

    def rows(self) -> Iterator[tuple[str, float | None, bool]]:
        """Of every row its own id and None, or its audio's stem and the offset (NaN without); and if it is kept."""
        for name, offset, own, kept in zip(self._names, self._offsets, self._has_own, self._kept, strict=True):
            yield name, None if own else offset, bool(kept)

    def _own(self, raw: RawRow) -> str | None:
        value = raw.fields.get("id")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ManifestError("id is neither text nor a whole number")
        own = str(value)
        if own in self._lines:
            raise ManifestError(f"id {own!r} stands on line {self._lines[own]} already")
        self._lines[own] = raw.line
        return own


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer that no clock knows; the row's check refuses it
        return math.nan


def _stem(path: object) -> str:
    """The file name without its suffix; as text, because `pathlib` is slow on large manifests."""
    return posixpath.splitext(posixpath.basename(path))[0] if isinstance(path, str) else ""
