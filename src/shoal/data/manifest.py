"""Read manifests into a data set: parse, filter, check, choose, look at the audio."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from shoal.data import badrows
from shoal.data.checks import Limits, check_audio, parse_row
from shoal.data.clip import Row
from shoal.data.dataset import Dataset
from shoal.data.ids import IdGiver
from shoal.data.sources import RawRow, read_source
from shoal.data.subset import evenly_spaced, matching
from shoal.errors import InputError, ManifestError, UsageError
from shoal.schema import BadRow

RowT = TypeVar("RowT", RawRow, Row)
Ref = str | os.PathLike[str]


def read_manifests(
    sources: Ref | Sequence[Ref],
    *,
    max_bad: float = 0.01,
    limit: int | None = None,
    where: Mapping[str, str] | None = None,
    seed: int = 0,
    needs_text: bool = True,
    lang: str | None = None,
    max_clip_seconds: float = 120.0,
) -> Dataset:
    """Read one or more sources; see `shoal.data.sources.read_source` for what a source can be.

    Args:
        sources: manifests, folders or `hf:` references, in the order their rows shall have.
        max_bad: how many rows may be left out: a share below 1 (of the rows looked at), or a count from 1 up.
        limit: use this many rows, evenly spaced over those that `where` leaves and whose fields are sound. A
            chosen row whose audio turns out bad is left out, not replaced.
        where: keep only rows whose fields have these values.
        seed: where the even spacing starts; 0 starts at the first row.
        needs_text: whether a row without a transcript is bad.
        lang: the language of rows that name none.
        max_clip_seconds: longer utterances are bad rows.

    Returns:
        The data set, rows in manifest order. Left-out rows are in `skipped` and named in a warning on stderr.

    Raises:
        ManifestError: a source cannot be read, has no usable row, or more rows are bad than `max_bad` allows.
        UsageError: an argument is wrong, or `where` leaves no row.
    """
    refs = _refs(sources)
    badrows.check_max_bad(max_bad)
    if not max_clip_seconds > 0:
        raise UsageError(f"{max_clip_seconds:g} s", where="--max-clip-seconds", fix="give a number above 0")
    named, broken = _read_all(refs)
    wanted = matching(named, where)
    sound, malformed = _sift(wanted, lambda raw: parse_row(raw, needs_text=needs_text, lang=lang))
    broken = _in_order(broken + malformed)
    badrows.refuse_too_many(broken, len(sound) + len(broken), max_bad)
    chosen = evenly_spaced(sound, limit, seed)
    limits = Limits(max_seconds=max_clip_seconds)
    rows, bad_audio = _sift(chosen, lambda row: check_audio(row, limits))
    badrows.refuse_too_many(bad_audio if max_bad < 1 else _in_order(broken + bad_audio), len(chosen), max_bad)
    return _dataset(refs, rows, broken, bad_audio, max_bad)


def _refs(sources: Ref | Sequence[Ref]) -> list[str]:
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    refs = [os.fspath(source) for source in listed]
    if not refs:
        raise UsageError("no manifest given", where="--data", fix="name a manifest, a folder or hf:NAME")
    twice = sorted({ref for ref in refs if refs.count(ref) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is given twice", where="--data", fix="name it once")
    return refs


def _read_all(refs: Sequence[str]) -> tuple[list[RawRow], list[BadRow]]:
    """All rows with their ids, and the rows that cannot be parsed or named."""
    giver = IdGiver()
    named: list[RawRow] = []
    broken: list[BadRow] = []
    for ref in refs:
        source = read_source(ref)
        rows, bad = giver.name_rows(source)
        named += rows
        broken += source.bad + bad
    return named, broken


def _in_order(bad: Sequence[BadRow]) -> list[BadRow]:
    return sorted(bad, key=lambda row: (row.manifest, row.line))


def _sift(items: Sequence[RowT], check: Callable[[RowT], Row]) -> tuple[list[Row], list[BadRow]]:
    """Apply `check` to every item: the rows that pass, and the bad rows."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    for item in items:
        try:
            rows.append(check(item))
        except InputError as error:
            bad.append(BadRow(manifest=item.manifest, line=item.line, reason=error.what))
    return rows, bad


def _dataset(
    refs: list[str], rows: list[Row], broken: list[BadRow], bad_audio: list[BadRow], max_bad: float
) -> Dataset:
    skipped = _in_order(broken + bad_audio)
    examined = len(rows) + len(bad_audio)
    badrows.warn(skipped, examined + len(broken))
    if not rows:
        raise ManifestError(
            f"no usable row: {badrows.named(skipped)}" if skipped else "no usable row", where=", ".join(refs)
        )
    return Dataset(refs, rows, skipped, max_bad, examined, list(bad_audio if max_bad < 1 else skipped))
