"""A folder that is written over several runs: what is finished is kept, and the name comes last.

The draft lies beside the final folder under a name that does not change (`.NAME.shoal-part`). In it a small file says
what it will be (a key over everything that decides its content) and which files are finished. A run with the same key
goes on from there; a run with another key starts afresh. A lock keeps two runs at a time apart.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shoal.errors import ModelError, UsageError, VerificationError
from shoal.locks import locked
from shoal.machine import writing
from shoal.pruning.folder import put_in_place
from shoal.schema import write_text

STATE = ".shoal-state.json"


class ResumableFolder:
    """The folder while it is being made.

    Args:
        folder: where.
        key: what it will be.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key
        self.finished: dict[str, Any] = _finished(folder, key)
        """Name of a finished file → what was recorded about it."""
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()
            elif path.relative_to(folder).as_posix() not in (*self.finished, STATE):
                path.unlink()

    def make(self, name: str, write: Callable[[Path], Any]) -> Any:
        """Let `write` make the file `name`, unless a run before has.

        Args:
            name: relative to the folder.
            write: makes the file under the path it is given, on the disk, and returns what to record (JSON).

        Returns:
            What was recorded.
        """
        if name in self.finished:
            return self.finished[name]
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            record = write(part)
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        # Noted only now: a file that a kill left without its note is removed and made again.
        self.finished[name] = record
        state = {"key": self._key, "files": self.finished}
        write_text(self.folder / STATE, json.dumps(state))
        return record


@contextmanager
def resumable_folder(out: Path, key: str, check: Callable[[], None]) -> Iterator[ResumableFolder]:
    """The draft of `out`, which takes its name if the block succeeds.

    On an error that a rerun can mend (a full disk, an interruption) what is finished stays; on one that says the
    content is wrong, nothing does.

    Args:
        out: the final folder.
        key: hash of everything that decides what is in it.
        check: raises if `out` must not be replaced; asked again at the end.

    Raises:
        UsageError: another run is at work on it.
        InputError: the place cannot be written, or the disk is full.
    """
    folder = out.with_name(f".{out.name}.shoal-part")
    busy = UsageError("another run is writing this checkpoint", where=str(out), fix="wait for it, or choose another")
    with writing(out), locked(folder.with_name(f"{folder.name}.lock"), busy=busy):
        folder.mkdir(exist_ok=True)
        draft = ResumableFolder(folder, key)
        try:
            yield draft
            check()
            (folder / STATE).unlink(missing_ok=True)
            put_in_place(folder, out)
            _sync_folder(out.parent)
        except BaseException as error:
            if isinstance(error, ModelError | VerificationError) or not draft.finished:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot; the content itself is on the disk either way.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finished(folder: Path, key: str) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        files = state["files"] if state["key"] == key else {}
        return {name: record for name, record in files.items() if (folder / name).is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
