"""Outputs that stay on the disk: an index in memory, each line read when it is asked for."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from pathlib import Path

from shoal.errors import FileFormatError
from shoal.evaluation.line_index import LineIndex, LinePosition
from shoal.evaluation.output import Output, hash_of
from shoal.machine import writing

CHUNK = 1 << 16
"""Bytes that are looked through at a time for the end of the last whole line."""


SYNC_SECONDS = 1.0
"""Waiting for the disk takes longer than decoding a short clip, so it is not done for each."""


class IndexedOutputs(Mapping[str, Output]):
    """Outputs by clip id, in the order of their lines; of several lines for one clip the last counts.

    A last line that was cut while being written is left out. About 28 bytes an output are in memory.

    Args:
        path: `NAME.jsonl`; if it is not there, there are no outputs.
        repair: also remove a cut last line from the file, so that more can be appended.

    Raises:
        FileFormatError: cannot be read, or a line is not an output.
    """

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._synced = -math.inf
        with _reading(path):
            if repair and path.exists():
                _cut_off(path)
            self._index = LineIndex(_entries(path) if path.exists() else ())

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, clip: object) -> bool:
        return isinstance(clip, str) and self._index.find(hash_of(clip)) is not None

    def __getitem__(self, clip: str) -> Output:
        place = self._index.find(hash_of(clip))
        output = None if place is None else self._output(place)
        if output is None or output.id != clip:
            raise KeyError(clip)
        return output

    def __iter__(self) -> Iterator[str]:
        return (output.id for output in self._in_order())

    def values(self) -> ValuesView[Output]:
        """The outputs; one at a time is in memory."""
        return _Values(self)

    def items(self) -> ItemsView[str, Output]:
        """Ids and outputs; one at a time is in memory."""
        return _Items(self)

    def answers(self, clip: str, question: int) -> bool:
        """Whether the output of a clip is for this question; nothing is read."""
        place = self._index.find(hash_of(clip))
        return place is not None and place.question == question

    def append(self, outputs: Iterable[Output]) -> None:
        """Add outputs. What this has returned from survives the end of the process; a power failure costs a second.

        Raises:
            FileFormatError: the file cannot be written.
        """
        made = list(outputs)
        lines = [output.line().encode() + b"\n" for output in made]
        keys = [hash_of(output.id) for output in made]
        self._append(keys, lines, [output.question for output in made])

    def take(self, other: IndexedOutputs, *, group: int = 1024) -> None:
        """Append the lines of another file, but those whose question is answered here; they are on the disk then.

        Args:
            other: is left as it is.
            group: lines that are written at once.

        Raises:
            FileFormatError: a file cannot be read or written.
        """
        keys: list[int] = []
        places: list[LinePosition] = []
        for key, place in other._index.in_order():
            mine = self._index.find(key)
            if mine is None or mine.question != place.question:
                keys.append(key)
                places.append(place)
            if len(places) == group:
                self._append(keys, [other._line(each) for each in places], [each.question for each in places])
                keys, places = [], []
        self._synced = -math.inf
        self._append(keys, [other._line(each) for each in places], [each.question for each in places])

    def _append(self, keys: list[int], lines: list[bytes], questions: list[int]) -> None:
        sync = time.monotonic() - self._synced > SYNC_SECONDS
        start = write_lines(self.path, lines, sync=sync)
        self._synced = time.monotonic() if sync else self._synced
        for key, line, question in zip(keys, lines, questions, strict=True):
            self._index.put(key, LinePosition(start, len(line), question))
            start += len(line)

    def _in_order(self) -> Iterator[Output]:
        return (self._output(place) for _, place in self._index.in_order())

    def _output(self, place: LinePosition) -> Output:
        try:
            return Output.of_line(self._line(place))
        except (ValueError, KeyError, TypeError):
            raise FileFormatError(
                "the outputs were changed while they were in use", where=str(self.path), fix="run again"
            ) from None

    def _line(self, place: LinePosition) -> bytes:
        with _reading(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._descriptor)
            return os.pread(self._descriptor, place.length, place.start)


class _Values(ValuesView[Output]):
    _mapping: IndexedOutputs

    def __iter__(self) -> Iterator[Output]:
        return self._mapping._in_order()


class _Items(ItemsView[str, Output]):
    _mapping: IndexedOutputs

    def __iter__(self) -> Iterator[tuple[str, Output]]:
        return ((output.id, output) for output in self._mapping._in_order())


def _entries(path: Path) -> Iterator[tuple[int, LinePosition]]:
    """Of every whole line: the clip's key, and where it stands."""
    start = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.endswith(b"\n"):
                output = _parsed(line, path, number)
                yield hash_of(output.id), LinePosition(start, len(line), output.question)
                start += len(line)


def _parsed(line: bytes, path: Path, number: int) -> Output:
    try:
        return Output.of_line(line)
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"not an output ({type(error).__name__}: {error})",
            where=f"{path}:{number}",
            fix="delete this line; its clip is then decoded again",
        ) from None


def _cut_off(path: Path) -> None:
    """Remove what stands behind the last end of line."""
    with path.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - CHUNK)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n") + 1
            if found:
                end = start + found
                break
            end = start
        if end < stream.seek(0, os.SEEK_END):
            stream.truncate(end)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(path)) from None


def write_lines(path: Path, lines: Iterable[bytes], *, sync: bool) -> int:
    """Append lines to a file, with `sync` also wait until all of it is on the disk; returns where the first begins.

    Raises:
        FileFormatError: the file cannot be written.
    """
    fix = "choose another place with --out; the same command then goes on"
    with writing(path, fix=fix), path.open("ab") as stream:
        start = stream.seek(0, os.SEEK_END)
        stream.write(b"".join(lines))
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
        return start
