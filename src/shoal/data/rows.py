"""The rows of a data set: an index in memory, each row read when it is asked for."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import overload
from zlib import crc32

import numpy as np
import numpy.typing as npt

from shoal.data.checks import parse_row
from shoal.data.clip import Row
from shoal.data.sources import RawRow, Source
from shoal.data.texts import Texts

Positions = npt.NDArray[np.uint32]


class RowIndex:
    """Where every row stands, what it is called and how long it is: about 26 bytes a row and its id.

    Args:
        sources: what the rows are read from.
        needs_text: as for `parse_row`.
        lang: as for `parse_row`.
    """

    def __init__(self, sources: Sequence[Source], *, needs_text: bool, lang: str | None) -> None:
        self.sources, self.needs_text, self._lang = list(sources), needs_text, lang
        self._source, self._within, self.seconds = array("H"), array("I"), array("d")
        self._ids, self._sums = Texts(), array("I")

    def __len__(self) -> int:
        return len(self._source)

    def add(self, source: int, within: int, raw: RawRow) -> Row:
        """Take in a row, which has no id yet.

        Args:
            source: number of its source.
            within: its position there.
            raw: the row.

        Raises:
            ManifestError: its fields are not what they should be.
        """
        row = self._parsed(raw, "", None)
        self._source.append(source)
        self._within.append(within)
        self.seconds.append(row.duration)
        return row

    def name(self, ids: Iterable[str]) -> None:
        """Give the rows that have none their ids, in order; each must be unique."""
        for row_id in ids:
            self._ids.append(row_id)
            self._sums.append(crc32(row_id.encode("utf-8", "surrogatepass")))

    def row(self, position: int) -> Row:
        """Read a row.

        Raises:
            ManifestError: its manifest has changed.
        """
        raw = self.sources[self._source[position]].rows[self._within[position]]
        return self._parsed(raw, self._ids[position], self.seconds[position])

    def source_of(self, position: int) -> int:
        """The number of the source of a row."""
        return self._source[position]

    def id(self, position: int) -> str:
        """The id of a row, without reading it."""
        return self._ids[position]

    def positions_of(self, row_id: str, positions: Positions) -> Positions:
        """Which of `positions` hold the row of this id; checksums are compared first, so that it is quick."""
        sums = np.frombuffer(self._sums, np.uint32)[positions]
        likely = positions[sums == crc32(row_id.encode("utf-8", "surrogatepass"))]
        return np.array([position for position in likely if self.id(int(position)) == row_id], np.uint32)

    def _parsed(self, raw: RawRow, row_id: str, seconds: float | None) -> Row:
        return parse_row(raw, row_id, needs_text=self.needs_text, lang=self._lang, duration=seconds)


class Rows(Sequence[Row]):
    """Rows of an index, in their order; itself never changes.

    Slices are views. Reading a row again gives an equal one, not the same one.

    Args:
        index: knows all rows.
        positions: those that are in here.
        facts: of these rows, where they are known already.
    """

    def __init__(self, index: RowIndex, positions: Iterable[int], facts: RowFacts | None = None) -> None:
        self._index = index
        self._positions = np.fromiter(positions, np.uint32)
        self._facts = facts

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> Rows: ...
    def __getitem__(self, position: int | slice) -> Row | Rows:
        if isinstance(position, slice):
            return Rows._of(self._index, self._positions[position])
        return self._index.row(int(self._positions[position]))

    def __iter__(self) -> Iterator[Row]:
        for position in self._positions:
            yield self._index.row(int(position))

    def ids(self) -> Iterator[str]:
        """The ids in order, without reading the rows."""
        for position in self._positions:
            yield self._index.id(int(position))

    def without(self, row_id: str) -> Rows:
        """All but one."""
        gone = self._index.positions_of(row_id, self._positions)
        return Rows._of(self._index, self._positions[~np.isin(self._positions, gone)])

    def seconds(self) -> npt.NDArray[np.float64]:
        """(N,) durations in order, without reading the rows."""
        return np.frombuffer(self._index.seconds)[self._positions]

    @property
    def texts_checked(self) -> bool:
        """Whether every row is known to have a text."""
        return self._index.needs_text

    @property
    def facts(self) -> RowFacts:
        """What the record says of them; they are read once for it, if they were not when they were looked at."""
        if self._facts is None:
            self._facts = facts(self)
        return self._facts

    @classmethod
    def _of(cls, index: RowIndex, positions: Positions) -> Rows:
        rows = cls(index, ())
        rows._positions = positions
        return rows


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What a record says of rows."""

    seconds: float
    speakers: int
    languages: list[str]
    fingerprint: str


class FactsSum:
    """Sums up rows, one after the other."""

    def __init__(self) -> None:
        self._digest, self._seconds = hashlib.sha256(), 0.0
        self._speakers: set[str | None] = set()
        self._languages: set[str | None] = set()

    def add(self, row: Row) -> None:
        """Take in the next row."""
        self._digest.update(_said(row))
        self._seconds += row.duration
        self._speakers.add(row.speaker)
        self._languages.add(row.lang)

    def facts(self) -> RowFacts:
        """Of all rows so far."""
        languages = sorted(language for language in self._languages if language)
        speakers = len(self._speakers - {None})
        return RowFacts(round(self._seconds, 3), speakers, languages, self._digest.hexdigest())


def facts(rows: Iterable[Row]) -> RowFacts:
    """Read rows once and sum them up."""
    total = FactsSum()
    for row in rows:
        total.add(row)
    return total.facts()


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 over path, offset, duration and text of the rows, in order; the same on every machine.

    Of an absolute path only the file name counts.
    """
    return rows.facts.fingerprint if isinstance(rows, Rows) else facts(rows).fingerprint


def _said(row: Row) -> bytes:
    path = PurePosixPath(str(row.fields.get("audio_filepath", row.audio.name)))
    name = path.name if path.is_absolute() else path.as_posix()
    return json.dumps([name, f"{row.offset:.3f}", f"{row.duration:.3f}", row.text]).encode() + b"\n"
