"""One process at a time writes a file of outputs; its shards are written by one process each.

Whoever decodes all of `NAME.jsonl` holds `NAME.lock`; whoever decodes a shard holds the lock of the shard's file.
Each takes its own lock first and then looks whether the other kind is held, so that of two that start together at
most one goes on.
"""

from __future__ import annotations

from contextlib import ExitStack
from glob import escape
from pathlib import Path

from shoal.errors import UsageError
from shoal.locks import locked
from shoal.machine import writing

PATIENCE = 1.0
"""Seconds until a lock counts as held: whoever looks at one, or lets go of one, holds it for a moment."""


class Locks:
    """Locks on files of outputs, held until the block ends or the process dies, however it dies."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        self._stack.close()

    def take(self, path: Path) -> None:
        """Lock all outputs of `NAME.jsonl`, its shards included; nothing if they are locked in here already.

        Raises:
            UsageError: another process holds them, or one of the shards.
            FileFormatError: the folder cannot be written.
        """
        if self._take(path, _busy(path)):
            for lock in path.parent.glob(f"{escape(path.stem)}.shard-*.lock"):
                _check_free(lock, _busy(path))

    def take_shard(self, path: Path, whole: Path) -> None:
        """Lock the shard in `path` of the outputs in `whole`.

        Raises:
            UsageError: another process holds it, or the whole.
            FileFormatError: the folder cannot be written.
        """
        if self._take(path, _busy(path)):
            _check_free(whole.with_suffix(".lock"), _busy(whole))

    def _take(self, path: Path, busy: UsageError) -> bool:
        lock = path.with_suffix(".lock")
        if lock in self._held:
            return False
        with writing(lock):
            self._stack.enter_context(locked(lock, busy=busy, patience=PATIENCE))
        self._held.add(lock)
        return True


def _check_free(lock: Path, busy: UsageError) -> None:
    with locked(lock, busy=busy, patience=PATIENCE):
        pass


def _busy(path: Path) -> UsageError:
    return UsageError(
        "another process is decoding into these outputs", where=str(path), fix="wait for it, or give another --out"
    )
