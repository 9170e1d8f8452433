"""A file that must not change while it is used."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

from shoal.errors import ManifestError


class UnchangedFile:
    """A file from which pieces are read in any order, also by several threads.

    It stays open, so one that is put in its place under the same name does no harm; one that is written over is found
    out by its size or the time it was written.

    Raises:
        ManifestError: cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self._as_it_was = self._state()

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`.

        Raises:
            ManifestError: the file has changed since it was opened, or cannot be read.
        """
        try:
            piece = os.pread(self._descriptor, length, start)
            changed = self._state() != self._as_it_was or len(piece) < length
        except OSError as error:
            raise ManifestError(f"cannot be read ({error.strerror})", where=str(self.path)) from None
        if changed:
            raise self._changed()
        return piece

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_as_it_was": self._as_it_was}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open()
        if self._state() != self._as_it_was:
            raise self._changed()

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ManifestError(f"cannot be read ({error.strerror})", where=str(self.path)) from None
        weakref.finalize(self, os.close, self._descriptor)

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> ManifestError:
        return ManifestError(
            "the file was changed while it was in use", where=str(self.path), fix="run the command again"
        )
