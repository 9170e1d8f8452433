"""What a machine has left, and how its errors say that it has nothing left: memory and disk."""

from __future__ import annotations

import errno
import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import FileFormatError, ShoalError

if TYPE_CHECKING:
    import torch

_MEMORY_WORDS = (
    "out of memory",  # CUDA, HIP and MPS, as an error of PyTorch's own or a plain RuntimeError of the driver
    "can't allocate memory",  # PyTorch's allocator for the CPU
    "not enough memory",  # the same on Windows
    "_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN, which have allocators of their own
)
_DISK_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words.lower() in text for words in _MEMORY_WORDS)


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that can still be had on `device`; without one, in the machine's own memory, without swapping."""
    if device is None or device.type != "cuda":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch holds and nobody uses can be used again.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def return_memory() -> None:
    """Give memory that nobody uses any more back to the devices."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_disk_full(error: BaseException | str) -> bool:
    """Whether this error, from whichever library, says that the disk (or the quota) is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in _DISK_WORDS)


def check_disk(folder: Path, needed: int, *, fix: str = "choose another place with --out") -> None:
    """Make sure, before anything is written, that the disk of `folder` has `needed` bytes free.

    Raises:
        FileFormatError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FileFormatError(
            f"the disk is full: {needed / 2**30:.2f} GiB are needed, {free / 2**30:.2f} GiB are free",
            where=str(folder),
            fix=f"free some space or {fix}",
        )


def write_error(
    error: BaseException, path: Path, *, fix: str = "choose another place with --out"
) -> FileFormatError | None:
    """The one line for a write that the system refused; None for any other error.

    Args:
        error: what was raised; some libraries hand the system's error on as text.
        path: what was written.
        fix: what to do, besides making room.
    """
    if is_disk_full(error):
        return FileFormatError("the disk is full", where=str(path), fix=f"free some space or {fix}")
    if isinstance(error, OSError) and error.strerror:
        return FileFormatError(f"cannot be written ({error.strerror})", where=str(path), fix=fix)
    return None


@contextmanager
def writing(path: Path, *, fix: str = "choose another place with --out") -> Iterator[None]:
    """Turn what the system refuses into one line.

    Raises:
        FileFormatError: `path` cannot be written, or the disk is full.
    """
    try:
        yield
    except ShoalError:
        raise
    except Exception as error:
        if line := write_error(error, path, fix=fix):
            raise line from None
        raise
