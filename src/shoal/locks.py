"""Locks between processes. A process that ends lets go of its locks, however it ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from shoal.errors import InputError

_WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_log = logging.getLogger("shoal.locks")


@contextmanager
def locked(path: Path, *, busy: InputError | Callable[[], None], patience: float = 0.2) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards.

    Args:
        path: of the lock file; its folder is made.
        busy: raised if another process holds the lock; or called once, and then the lock is waited for.
        patience: seconds until a lock counts as held: one that is let go of, its file removed, is free a moment later.

    Raises:
        OSError: the folder cannot be written.
    """
    lock = FileLock(path, thread_local=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    _acquire(lock, busy, patience)
    try:
        yield
    finally:
        # Whoever has opened the file and waits for it sees that it has no name any more, and makes a new one.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _acquire(lock: FileLock, busy: InputError | Callable[[], None], patience: float) -> None:
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        if isinstance(busy, InputError):
            raise busy from None
        busy()
        lock.acquire()
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        path = lock.lock_file
        _log.warning("warning: %s: this file system has no locks; start only one process for it", path)
