"""One process at a time writes a file of outputs; its shards are written by one process each."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.errors import FileFormatError, UsageError

PATIENCE = 1.0
"""Seconds until a lock counts as held: whoever lets go of one holds it for a moment."""
_WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_log = logging.getLogger("shoal.evaluate")


class Locks:
    """Locks on files of outputs, held until the block ends or the process dies, however it dies.

    A lock is a file `NAME.lock` beside `NAME.jsonl`, which is removed in the end.
    """

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            lock, descriptor = self._held.popitem()
            _let_go(lock, descriptor)

    def take(self, path: Path, *, shared: bool = False) -> None:
        """Lock the file of outputs `path`; one that is held in here already is left as it is.

        Args:
            path: `NAME.jsonl`.
            shared: with others that take it shared, instead of alone.

        Raises:
            UsageError: another process holds it.
            FileFormatError: the folder cannot be written.
        """
        lock = path.with_suffix(".lock")
        if lock not in self._held:
            with _writing(lock):
                lock.parent.mkdir(parents=True, exist_ok=True)
                self._held[lock] = _taken(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path)


def _taken(lock: Path, how: int, path: Path) -> int:
    begun = time.monotonic()
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if _locked(descriptor, how, lock):
            # The one before may have removed the file between our opening and our locking it.
            if _is_still(lock, descriptor):
                return descriptor
            os.close(descriptor)
            continue
        os.close(descriptor)
        if time.monotonic() - begun > PATIENCE:
            raise UsageError(
                "another process is decoding into these outputs",
                where=str(path),
                fix="wait for it, or give another --out",
            )
        time.sleep(0.05)


def _locked(descriptor: int, how: int, lock: Path) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        _log.warning("warning: %s: this file system has no locks; start only one process for it", lock)
    return True


def _is_still(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _let_go(lock: Path, descriptor: int) -> None:
    """The last one to hold the lock removes its file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("%s stays: %s", lock, error)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(lock: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileFormatError(
            f"cannot be written ({error.strerror})", where=str(lock), fix="choose another place with --out"
        ) from None
