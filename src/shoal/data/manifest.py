"""Read manifests into a data set: parse, filter, check, choose, look at the audio."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from shoal.data import badrows
from shoal.data.checks import AudioCheck, Limits
from shoal.data.clip import Row
from shoal.data.dataset import Dataset
from shoal.data.ids import IdGiver
from shoal.data.rows import RowIndex, Rows
from shoal.data.settings import DataSettings
from shoal.data.sources import RawRow, Source, read_source
from shoal.data.subset import evenly_spaced, matches, no_match
from shoal.errors import InputError, ManifestError, UsageError
from shoal.progress import Progress
from shoal.schema import BadRow
from shoal.settings import takes

Ref = str | os.PathLike[str]
QUIET_SECONDS = 2.0
"""Looking at the audio says nothing of its progress for so long."""
LOOKERS = 8
AT_ONCE = 256
"""Rows whose audio headers are read by so many threads together."""


@takes(DataSettings)
def read_manifests(
    sources: Ref | Sequence[Ref],
    settings: DataSettings | None = None,
    *,
    needs_text: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Read one or more sources; see `shoal.data.sources.read_source` for what a source can be.

    Args:
        sources: manifests, folders or `hf:` references, in the order their rows shall have.
        settings: which rows are used.
        needs_text: whether a row without a transcript is bad.
        progress: called with ("look at audio", rows looked at, in all) once that has taken a few seconds.
        **options: fields of `DataSettings`, instead of `settings` or in their place.

    Returns:
        The data set, rows in manifest order. Left-out rows are in `skipped` and named in a warning on stderr.

    Raises:
        ManifestError: a source cannot be read or changes meanwhile, has no usable row, or more rows are bad than
            `max_bad` allows.
        UsageError: an argument is wrong, or `where` leaves no row.
    """
    settings, refs = DataSettings.of(settings, options), _refs(sources)
    max_bad = settings.max_bad
    index, broken = _survey(
        [read_source(ref) for ref in refs], settings.where, needs_text=needs_text, lang=settings.lang
    )
    badrows.refuse_too_many(broken, len(index) + len(broken), max_bad)
    chosen = evenly_spaced(range(len(index)), settings.limit, settings.seed)
    places, bad_audio = _check_audio(index, chosen, Limits(max_seconds=settings.max_clip_seconds), progress)
    badrows.refuse_too_many(bad_audio if max_bad < 1 else _in_order(broken + bad_audio), len(chosen), max_bad)
    return _dataset(refs, Rows(index, places), broken, bad_audio, max_bad)


def _refs(sources: Ref | Sequence[Ref]) -> list[str]:
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    refs = [os.fspath(source) for source in listed]
    if not refs:
        raise UsageError("no manifest given", where="--data", fix="name a manifest, a folder or hf:NAME")
    twice = sorted({ref for ref in refs if refs.count(ref) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is given twice", where="--data", fix="name it once")
    return refs


def _survey(
    sources: Sequence[Source], where: Mapping[str, str], *, needs_text: bool, lang: str | None
) -> tuple[RowIndex, list[BadRow]]:
    """The rows that `where` leaves and whose fields are sound, and those that are not.

    Raises:
        UsageError: `where` leaves no row.
    """
    index, giver = RowIndex(sources, needs_text=needs_text, lang=lang), IdGiver()
    broken = [bad for source in sources for bad in source.bad]
    named = wanted = 0
    for number, source in enumerate(sources):
        for within, raw, row_id in giver.name_rows(source, broken):
            named += 1
            if matches(raw.fields, where):
                wanted += 1
                with _noting(raw, broken):
                    index.add(number, within, raw, row_id)
    if named and not wanted:
        raise no_match([raw.fields for source in sources for raw in source.rows], where)
    return index, _in_order(broken)


def _check_audio(
    index: RowIndex, places: Sequence[int], limits: Limits, progress: Progress | None
) -> tuple[list[int], list[BadRow]]:
    """The places whose audio can be used, their `seconds` put right, and the bad rows."""
    check, begun = AudioCheck(limits), time.monotonic()
    kept: list[int] = []
    bad: list[BadRow] = []
    with ThreadPoolExecutor(LOOKERS, "shoal-look") as pool:
        for start in range(0, len(places), AT_ONCE):
            group = [(place, index.row(place)) for place in places[start : start + AT_ONCE]]
            check.look((row for _, row in group), pool)
            for place, row in group:
                with _noting(row, bad):
                    index.seconds[place] = check(row).duration
                    kept.append(place)
            if progress is not None and time.monotonic() - begun > QUIET_SECONDS:
                progress("look at audio", start + len(group), len(places))
    return kept, bad


@contextmanager
def _noting(row: RawRow | Row, bad: list[BadRow]) -> Iterator[None]:
    """A row that cannot be used joins `bad`."""
    try:
        yield
    except InputError as error:
        bad.append(BadRow(manifest=row.manifest, line=row.line, reason=error.what))


def _in_order(bad: Sequence[BadRow]) -> list[BadRow]:
    return sorted(bad, key=lambda row: (row.manifest, row.line))


def _dataset(
    refs: list[str], rows: Rows, broken: list[BadRow], bad_audio: list[BadRow], max_bad: float
) -> Dataset:
    skipped = _in_order(broken + bad_audio)
    examined = len(rows) + len(bad_audio)
    badrows.warn(skipped, examined + len(broken))
    if not rows:
        raise ManifestError(
            f"no usable row: {badrows.named(skipped)}" if skipped else "no usable row", where=", ".join(refs)
        )
    return Dataset(refs, rows, skipped, max_bad, examined, list(bad_audio if max_bad < 1 else skipped))
