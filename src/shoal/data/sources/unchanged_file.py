"""A file that must not change while it is used."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from threading import Lock
from typing import Any

from shoal.errors import ManifestError


class UnchangedFile:
    """A file from which pieces are read in any order, also by several threads or forked processes.

    It stays open, so one that is put in its place under the same name does no harm; one that is written over is found
    out by its size or the time it was written. A pickled one opens the file again.

    Args:
        path: of the file.
        stamp: its size and the time it was written, where it was opened before.

    Raises:
        ManifestError: cannot be opened, or has changed since it was opened before.
    """

    def __init__(self, path: Path, stamp: tuple[int, int] | None = None) -> None:
        self.path, self._lock = path, Lock()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from None
        weakref.finalize(self, self._file.close)
        self._stamp = stamp or self._current_stamp()
        self._check_unchanged()

    def __reduce__(self) -> tuple[Any, ...]:
        return UnchangedFile, (self.path, self._stamp)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`.

        Raises:
            ManifestError: the file has changed since it was opened, or cannot be read.
        """
        try:
            piece = self._read_at(start, length)
        except OSError as error:
            raise self._unreadable(error) from None
        self._check_unchanged(complete=len(piece) == length)
        return piece

    def _read_at(self, start: int, length: int) -> bytes:
        # Forked processes share the position in the file, so it is not used where there is a way without.
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), length, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)

    def _current_stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self, *, complete: bool = True) -> None:
        if not complete or self._current_stamp() != self._stamp:
            raise ManifestError(
                "the file was changed while it was in use", where=str(self.path), fix="run the command again"
            )

    def _unreadable(self, error: OSError) -> ManifestError:
        return ManifestError(f"cannot be read ({error.strerror})", where=str(self.path))
