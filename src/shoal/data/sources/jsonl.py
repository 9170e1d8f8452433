"""NeMo-style manifests: one JSON object a line."""

from __future__ import annotations

import codecs
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

from shoal.data.sources.base import RawRow, Source
from shoal.data.sources.unchanged_file import UnchangedFile
from shoal.data_names import label_of
from shoal.errors import ManifestError
from shoal.schema import BadRow

_UTF16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class ManifestRows(Sequence[RawRow]):
    """The rows of a manifest on the disk, parsed whenever one is asked for; 16 bytes a row are in memory.

    Raises:
        ManifestError: (of every access) the manifest has changed since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._name, self._folder = path, str(path), path.parent
        self._file = UnchangedFile(path)
        self._starts, self._lengths, self._lines = array("Q"), array("I"), array("I")

    def add(self, line: _Line) -> None:
        """Take in where a row stands."""
        self._starts.append(line.start)
        self._lengths.append(line.length)
        self._lines.append(line.number)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> RawRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[RawRow]: ...
    def __getitem__(self, index: int | slice) -> RawRow | list[RawRow]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        number = self._lines[index]
        raw = self._file.read(self._starts[index], self._lengths[index])
        try:
            fields = _parse(_decode(raw, self._path, number))
        except ValueError as error:  # a change that left size and time as they were
            raise ManifestError(str(error), where=f"{self._name}:{number}") from None
        return RawRow(self._name, number, fields, folder=self._folder)


def read_jsonl(path: Path) -> Source:
    """A manifest; blank lines are ignored, lines that are no JSON object become bad rows.

    A byte order mark and Windows line ends are accepted. Rows stay on the disk, but for a pipe, which can be read
    only once.

    Raises:
        ManifestError: (here or while it is scanned) cannot be read, empty, binary, not UTF-8 or a JSON array.
    """
    name, bad = str(path), list[BadRow]()
    if path.is_fifo():
        return Source(name, label_of(name), list(_scan(path, bad)), bad)
    rows = ManifestRows(path)
    return Source(name, label_of(name), rows, bad, scan=partial(_scan, path, bad, rows))


def _scan(path: Path, bad: list[BadRow], index: ManifestRows | None = None) -> Iterator[RawRow]:
    """The rows of a manifest in order, which `index` takes in; lines that are none join `bad`."""
    name, count = str(path), 0
    for line in _lines(path):
        try:
            fields = _parse(line.text)
        except ValueError as error:
            bad.append(BadRow(manifest=name, line=line.number, reason=str(error)))
            continue
        count += 1
        if index is not None:
            index.add(line)
        yield RawRow(name, line.number, fields, folder=path.parent)
    if not count and not bad:
        raise ManifestError("the manifest is empty", where=name, fix="write one JSON object a line")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is not blank, and where it stands."""

    number: int
    start: int
    length: int
    text: str


def _lines(path: Path) -> Iterator[_Line]:
    start = 0
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                text = _decode(raw, path, number)
                if text:
                    yield _Line(number, start, len(raw), text)
                start += len(raw)
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror})", where=str(path)) from None


def _decode(raw: bytes, path: Path, number: int) -> str:
    where = f"{path}:{number}"
    if number == 1 and raw.startswith(_UTF16_OR_32):
        raise ManifestError("the manifest is UTF-16 or UTF-32", where=str(path), fix="save it as UTF-8")
    if b"\0" in raw:
        raise ManifestError("this is a binary file, not a manifest", where=where, fix="give a JSONL manifest")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"not UTF-8 text (byte {error.start + 1} of the line)", where=where, fix="save the manifest as UTF-8"
        ) from None
    if number == 1 and text.startswith("["):
        raise ManifestError(
            "the manifest is a JSON array", where=str(path), fix="write one JSON object a line (JSON lines)"
        )
    return text


def _parse(text: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ValueError: why it is none, ready to be shown.
    """
    try:
        fields = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a UTF-16 surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):
        raise ValueError("not JSON that can be read (a number too long or nested too deeply)") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON {type(fields).__name__}, not an object")
    return fields
