"""Encoder states on disk: shards of raw rows, found through append-only indexes, safe against being killed.

::

    folder/0-of-2-00000.bin     (frames, d_enc) of one state after the other, row-major, no header
    folder/index-0-of-2.jsonl   {"key": …, "shard": "0-of-2-00000.bin", "start": 0, "frames": 150}
    folder/lock-0-of-2          held while a process writes the two above

A process writes the files of its rank and reads those of all. A state counts once its line stands in the index,
which is written after the data is on the disk. What a kill leaves (half a line, data without a line) is ignored by
readers and cut off by the next writer of that rank.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shoal.errors import FileFormatError
from shoal.locks import locked
from shoal.machine import writing
from shoal.training.state_index import Entry, mended, readable

States = npt.NDArray[Any]
"""(frames, d_enc), float16 or float32."""

SHARD_BYTES = 256 * 2**20
"""A shard that has reached this size is closed."""

_log = logging.getLogger("shoal.training")


@dataclass(frozen=True, slots=True)
class StateRef:
    """Where a state lies: frames `start` … `start + frames` of shard number `file` of this process's store."""

    file: int
    start: int
    frames: int


class StateFiles:
    """The states in one folder.

    Args:
        folder: need not exist yet.
        size: d_enc.
        dtype: float16 or float32.
        shard_bytes: see `SHARD_BYTES`.
    """

    def __init__(
        self, folder: Path, size: int, dtype: npt.DTypeLike, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.size, self.dtype, self.shard_bytes = folder, size, np.dtype(dtype), shard_bytes
        self._numbers: dict[str, int] = {}
        self._shards: list[str] = []
        self._maps: dict[int, States] = {}
        self._found: dict[str, StateRef] = {}
        self.refresh()

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.size * self.dtype.itemsize

    def refresh(self) -> None:
        """Read all indexes again; refs that are still good stay good.

        Raises:
            FileFormatError: an index cannot be read.
        """
        self._maps.clear()
        self._found.clear()
        for index in sorted(self.folder.glob("index-*.jsonl")):
            for entry in readable(index, self.frame_bytes):
                self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take in one entry; of two with the same key the first counts."""
        number = self._numbers.setdefault(entry.shard, len(self._shards))
        if number == len(self._shards):
            self._shards.append(entry.shard)
        self._found.setdefault(entry.key, StateRef(number, entry.start, entry.frames))

    def get(self, key: str) -> StateRef | None:
        """Where the state lies; None if it is not there."""
        return self._found.get(key)

    def read(self, refs: Sequence[StateRef]) -> States:
        """The states one after the other, (sum of frames, d_enc), as one new array.

        Raises:
            FileFormatError: a shard is gone or was cut off since its index was read.
        """
        if not refs:
            return np.empty((0, self.size), self.dtype)
        return np.concatenate([self._view(ref) for ref in refs])

    @contextmanager
    def writer(self, rank: int, world: int) -> Iterator[StateWriter]:
        """Write the files of `rank`, alone; waits while another process does.

        What others wrote in the meantime is known when the block begins.

        Raises:
            FileFormatError: the folder cannot be written, or its disk is full.
        """
        name = f"{rank}-of-{world}"
        lock = locked(
            self.folder / f"lock-{name}",
            busy=lambda: _log.warning("waiting for another process that encodes audio into %s", self.folder),
        )
        with ExitStack() as stack:
            with writing(self.folder, fix="choose another folder"):
                stack.enter_context(lock)
            writer = stack.enter_context(StateWriter(self, name))
            self.refresh()
            yield writer

    def _view(self, ref: StateRef) -> States:
        end = ref.start + ref.frames
        shard = self._maps.get(ref.file)
        if shard is None or len(shard) < end:
            shard = self._maps[ref.file] = self._map(self._shards[ref.file])
        if len(shard) < end:
            raise self._gone(self._shards[ref.file])
        return shard[ref.start : end]

    def _map(self, name: str) -> States:
        path = self.folder / name
        try:
            frames = path.stat().st_size // self.frame_bytes
            mapped = np.memmap(path, self.dtype, mode="r", shape=(frames, self.size))
        except (OSError, ValueError):
            raise self._gone(name) from None
        return mapped.view(np.ndarray)

    def _gone(self, name: str) -> FileFormatError:
        return FileFormatError(
            "the cached encoder states are gone or cut off",
            where=str(self.folder / name),
            fix="run again, what is missing is computed anew",
        )


class StateWriter:
    """Appends states to the files of one rank; first cuts off what a kill left behind.

    Args:
        files: where the entries are announced.
        name: `rank-of-world`; the caller holds its lock.

    Raises:
        FileFormatError: the folder cannot be written, or its disk is full.
    """

    def __init__(self, files: StateFiles, name: str) -> None:
        self._files, self._name = files, name
        self._shard: BinaryIO | None = None
        with writing(files.folder, fix="choose another folder"):
            index = files.folder / f"index-{name}.jsonl"
            entries = mended(index, files.frame_bytes)
            own = [entry for entry in entries if self._number(entry.shard) is not None]
            self._current = max((self._number(entry.shard) or 0 for entry in own), default=0)
            self._frames = max((entry.end for entry in own if entry.shard == self._shard_name), default=0)
            self._cut()
            self._index = index.open("ab")

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._shard, self._index):
            if file is not None:
                # After a failed write, closing tries the rest once more.
                with _quietly():
                    file.close()

    def add(self, states: Sequence[tuple[str, States]]) -> None:
        """Append (key, (frames, d_enc)) pairs: all data to the disk, then all lines.

        Raises:
            FileFormatError: the write was refused, or the disk is full.
        """
        with writing(self._files.folder, fix="choose another folder"):
            entries = [self._append(key, state) for key, state in states]
            self._sync()
            self._index.write(b"".join(entry.line for entry in entries))
            self._index.flush()
        for entry in entries:
            self._files.add(entry)

    def _append(self, key: str, state: States) -> Entry:
        if self._frames * self._files.frame_bytes >= self._files.shard_bytes:
            self._close()
            self._current, self._frames = self._current + 1, 0
        if self._shard is None:
            self._shard = (self._files.folder / self._shard_name).open("ab")
        entry = Entry(key, self._shard_name, self._frames, len(state))
        self._shard.write(np.ascontiguousarray(state, self._files.dtype).data)
        self._frames = entry.end
        return entry

    def _sync(self) -> None:
        if self._shard is not None:
            self._shard.flush()
            os.fsync(self._shard.fileno())

    def _close(self) -> None:
        self._sync()
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _cut(self) -> None:
        """Cut the current shard behind its last known frame, and delete those that no entry names."""
        for path in self._files.folder.glob(f"{self._name}-*.bin"):
            number = self._number(path.name)
            if number is not None and number > self._current:
                path.unlink()
            elif number == self._current:
                os.truncate(path, self._frames * self._files.frame_bytes)

    @property
    def _shard_name(self) -> str:
        return f"{self._name}-{self._current:05d}.bin"

    def _number(self, shard: str) -> int | None:
        """The number of a shard of this rank; None for others."""
        found = re.fullmatch(re.escape(self._name) + r"-(\d{5,})\.bin", shard)
        return int(found[1]) if found else None


@contextmanager
def _quietly() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.debug("closing a state file: %s", error)
