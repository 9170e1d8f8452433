"""Run a command and watch what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.1
KIB = 1024


@dataclass(frozen=True)
class Usage:
    """What a command took; memory in bytes, of it and its children together.

    Args:
        seconds: until it ended.
        resident: peak resident memory, pages of mapped files included (`VmHWM`).
        anonymous: peak of what is its own and could not be dropped (`RssAnon`, sampled).
    """

    seconds: float
    resident: int
    anonymous: int


class CommandError(Exception):
    """The command failed; the message is the end of its log."""


def watch(command: Sequence[str], log: Path) -> Usage:
    """Run `command`, its output into `log`.

    Raises:
        CommandError: it ended with another code than 0.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    highest: dict[int, int] = {}
    anonymous = 0
    while process.poll() is None:
        present = [_status(pid) for pid in _family(process.pid)]
        for status in present:
            highest[status["Pid"]] = max(highest.get(status["Pid"], 0), status.get("VmHWM", 0))
        anonymous = max(anonymous, sum(status.get("RssAnon", 0) for status in present))
        time.sleep(EVERY)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise CommandError(f"exit {process.returncode}: {log.read_text(errors='replace')[-500:]}")
    return Usage(seconds, sum(highest.values()) * KIB, anonymous * KIB)


def forget(files: Iterable[Path]) -> None:
    """Have the system drop `files` from its cache, so that they are read from the disk; no root needed."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def to_disk(folder: Path) -> None:
    """Wait until the files in `folder` are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


def _status(pid: int) -> dict[str, int]:
    """The numbers of `/proc/PID/status`, memory in KiB; the pid alone once it is gone."""
    found = {"Pid": pid}
    if sys.platform != "linux":
        return found
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssAnon"):
            found[name] = int(value.split()[0])
    return found
