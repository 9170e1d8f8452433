"""The cache of converted weights: one folder a model, whole or not there.

A folder is made under a hidden name and renamed when it is complete. One process at a time makes one. Every
folder carries a record of what it was made from and the SHA-256 of each file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from shoal.errors import FileFormatError
from shoal.locks import locked
from shoal.models.catalogue import PackageWeights
from shoal.models.wheels import file_sha256
from shoal.provenance import provenance
from shoal.schema import Document, Record

RECORD = "shoal-weights.json"
_PARTIAL = ".partial-"


class CachedFile(Record):
    """One file of a cached folder."""

    bytes: int
    sha256: str


class WeightsRecord(Document):
    """What a cached folder was made from."""

    kind: Literal["weights"] = "weights"
    name: str
    origin: str
    licence: str
    converter: str
    converter_version: int
    dtype: str
    wheels: dict[str, str] = Field(default_factory=dict)
    """File name → SHA-256."""
    files: dict[str, CachedFile] = Field(default_factory=dict)


def root() -> Path:
    """Where Shoal caches: `$SHOAL_CACHE`, else `~/.cache/shoal`."""
    chosen = os.environ.get("SHOAL_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "shoal"


def folder(name: str) -> Path:
    """Where the weights of that name go."""
    return root() / "weights" / name


def make_record(entry: PackageWeights, converter_version: int, made: Path) -> WeightsRecord:
    """The record of a finished folder; reads every file."""
    files = {
        path.relative_to(made).as_posix(): CachedFile(bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in sorted(made.rglob("*"))
        if path.is_file()
    }
    return WeightsRecord(
        provenance=provenance(dtype=entry.dtype),
        name=entry.name,
        origin=entry.origin,
        licence=entry.licence,
        converter=entry.format,
        converter_version=converter_version,
        dtype=entry.dtype,
        wheels={wheel.filename: wheel.sha256 for wheel in entry.wheels},
        files=files,
    )


def read_record(path: Path) -> WeightsRecord | None:
    """The record in a folder, or None where there is none that can be read."""
    try:
        return WeightsRecord.load(path / RECORD)
    except FileFormatError:
        return None


def is_current(entry: PackageWeights, converter_version: int) -> bool:
    """Whether the cache has these wheels, converted by this version, with every file at its recorded size.

    Cheap enough for every use; `problems` reads the files.
    """
    path = folder(entry.name)
    record = read_record(path)
    return (
        record is not None
        and (record.converter, record.converter_version) == (entry.format, converter_version)
        and record.dtype == entry.dtype
        and record.wheels == {wheel.filename: wheel.sha256 for wheel in entry.wheels}
        and all(_size(path / name) == file.bytes for name, file in record.files.items())
    )


def problems(entry: PackageWeights) -> list[str]:
    """What is wrong with a cached folder, file by file; reads all of it."""
    path = folder(entry.name)
    record = read_record(path)
    if record is None:
        return [f"{RECORD} is missing or damaged"]
    names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {RECORD}
    problems_found = [f"{name} does not belong there" for name in sorted(names - set(record.files))]
    for name, file in record.files.items():
        if name not in names:
            problems_found.append(f"{name} is missing")
        elif file_sha256(path / name) != file.sha256:
            problems_found.append(f"{name} is damaged (SHA-256 differs)")
    return problems_found


@contextmanager
def locked_cache(waiting: Callable[[], None]) -> Iterator[Path]:
    """Hold the cache against other processes; yields the folder of all weights.

    Args:
        waiting: called once if another process holds it and this one waits.
    """
    home = root() / "weights"
    with locked(home / ".lock", busy=waiting):
        yield home


@contextmanager
def staging(home: Path) -> Iterator[Path]:
    """A hidden folder to work in, gone afterwards whatever happens; clears what a killed process left."""
    for left in home.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=home))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish(made: Path, name: str, staging_folder: Path) -> Path:
    """Give a finished folder its name; what stood there goes into the staging folder and away with it."""
    target = folder(name)
    if target.exists():
        target.rename(staging_folder / "replaced")
    made.chmod(0o755)
    for path in made.iterdir():  # safetensors makes its files readable by their owner only
        shutil.copymode(made / RECORD, path)
    return made.rename(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
