"""Outputs that stay on the disk: an index in memory, each line read when it is asked for."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        position = self._index.find(hash_of(clip))
        output = None if position is None else self._output(position)
        if output is None or output.id != clip:
            raise KeyError(clip)
        return output

    def __iter__(self) -> Iterator[str]:
        return (self._output(position).id for _, position in self._index.in_order())

    def answers(self, clip: str, question: int) -> bool:
        """Whether the output of a clip is for this question; nothing is read."""
        position = self._index.find(hash_of(clip))
        return position is not None and position.question == question

    def append(self, outputs: Iterable[Output]) -> None:
        """Add outputs. What this has returned from survives the end of the process; a power failure costs a second.

        Raises:
            FileFormatError: the file cannot be written.
        """
        self._append([(hash_of(output.id), output.line().encode() + b"\n", output.question) for output in outputs])

    def take(self, other: IndexedOutputs, *, group: int = 1024) -> None:
        """Append the lines of another file, but those whose question is answered here; they are on the disk then.

        Args:
            other: is left as it is.
            group: lines that are written at once.

        Raises:
            FileFormatError: a file cannot be read or written.
        """
        entries: list[tuple[int, bytes, int]] = []
        for key, position in other._index.in_order():
            own = self._index.find(key)
            if own is None or own.question != position.question:
                entries.append((key, other._line(position), position.question))
            if len(entries) == group:
                self._append(entries)
                entries = []
        self._synced = -math.inf
        self._append(entries)

    def _append(self, entries: Sequence[tuple[int, bytes, int]]) -> None:
        """Write (key, line, question) of each output."""
        sync = time.monotonic() - self._synced > SYNC_SECONDS
        start = write_lines(self.path, [line for _, line, _ in entries], sync=sync)
        self._synced = time.monotonic() if sync else self._synced
        for key, line, question in entries:
            self._index.put(key, LinePosition(start, len(line), question))
            start += len(line)

    def _output(self, position: LinePosition) -> Output:
        try:
            return Output.of_line(self._line(position))
        except (ValueError, KeyError, TypeError):
            raise FileFormatError(
                "the outputs were changed while they were in use", where=str(self.path), fix="run again"
            ) from None

    def _line(self, position: LinePosition) -> bytes:
        with _reading(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._descriptor)
            return os.pread(self._descriptor, position.length, position.start)


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
            behind_line = stream.read(end - start).rfind(b"\n") + 1
            if behind_line:
                end = start + behind_line
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
