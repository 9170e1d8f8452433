"""Read manifests into a data set: parse, filter, check, choose, look at the audio."""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

from shoal.data import bad_rows
from shoal.data.checks import AudioCheck, Limits
from shoal.data.clip import Row
from shoal.data.dataset import Dataset
from shoal.data.ids import Ids, SourceNames
from shoal.data.rows import FactsSum, RowFacts, RowIndex, Rows
from shoal.data.settings import DataSettings
from shoal.data.sources import RawRow, read_source
from shoal.data.subset import as_text, matches, no_match, spread
from shoal.errors import InputError, ManifestError, UsageError
from shoal.progress import Progress
from shoal.schema import BadRow
from shoal.settings import takes

Ref = str | os.PathLike[str]
_log = logging.getLogger("shoal.data")
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
    label_field: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Read one or more sources; see `shoal.data.sources.read_source` for what a source can be.

    Args:
        sources: manifests, folders or `hf:` references, in the order their rows shall have.
        settings: which rows are used.
        needs_text: whether a row without a transcript is bad.
        label_field: the field with the label of a row, where the task has labels: `limit` takes its share of each.
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
    index = RowIndex([read_source(ref) for ref in refs], needs_text=needs_text, lang=settings.lang)
    survey = _Survey(index, settings.where, label_field)
    with _GroupedAudioCheck(index, Limits(max_seconds=settings.max_clip_seconds), progress) as audio:
        for position, row in survey.rows():
            # Where all rows are used, each is looked at while it is at hand; else the end tells which are.
            if settings.limit is None:
                audio.add(position, row)
        broken = _in_order(survey.bad)
        bad_rows.refuse_too_many(broken, len(index) + len(broken), max_bad)
        chosen = spread(range(len(index)), settings.limit, settings.seed, [index.source_of, survey.label_of])
        if settings.limit is not None:
            survey.warn_of_one_label(chosen, f"{settings.limit_option} {settings.limit}")
            audio.total = len(chosen)
            for position in chosen:
                audio.add(position, index.row(position))
    bad = audio.bad if max_bad < 1 else _in_order(broken + audio.bad)
    bad_rows.refuse_too_many(bad, len(chosen), max_bad)
    return _dataset(refs, Rows(index, audio.kept, audio.facts), broken, audio.bad, max_bad)


def _refs(sources: Ref | Sequence[Ref]) -> list[str]:
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    refs = [os.fspath(source) for source in listed]
    if not refs:
        raise UsageError("no manifest given", where="--data", fix="name a manifest, a folder or hf:NAME")
    twice = sorted({ref for ref in refs if refs.count(ref) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is given twice", where="--data", fix="name it once")
    return refs


class _Survey:
    """Goes through all sources once: the rows that `where` leaves and whose fields are sound, and those that are not.

    Args:
        index: takes in the sound ones.
        where: as for `read_manifests`.
        label_field: as for `read_manifests`.
    """

    def __init__(self, index: RowIndex, where: Mapping[str, str], label_field: str | None) -> None:
        self._index, self._where, self._label_field = index, where, label_field
        self.bad: list[BadRow] = []
        self._labels = array("I")
        """The label of every row in the index, as a number; empty without `label_field`."""
        self._numbers: dict[str, int] = {}

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Position in the index and row, which gets its id when its source has come to its end.

        Raises:
            ManifestError: a source cannot be read.
            UsageError: `where` leaves no row.
        """
        ids, named, matching = Ids(), 0, 0
        for number, source in enumerate(self._index.sources):
            names = SourceNames(source.label)
            for within, raw in source.read():
                with _noting(raw, self.bad):
                    names.add(raw)
                    named += 1
                    if not matches(raw.fields, self._where):
                        continue
                    matching += 1
                    row = self._index.add(number, within, raw)
                    names.keep()
                    if self._label_field is not None:
                        label = " ".join(as_text(raw.fields.get(self._label_field)).lower().split())
                        self._labels.append(self._numbers.setdefault(label, len(self._numbers)))
                    yield len(self._index) - 1, row
            self._index.name(ids.of(names))
            self.bad.extend(source.bad)
        if named and not matching:
            raise no_match([raw.fields for source in self._index.sources for raw in source.rows], self._where)

    def label_of(self, position: int) -> int:
        """The number of a row's label; the same for all rows where there are no labels."""
        return self._labels[position] if self._labels else 0

    def warn_of_one_label(self, chosen: Sequence[int], limit: str) -> None:
        """Say so where a limit leaves one label of several: nothing can be said then of telling them apart."""
        left = {self.label_of(position) for position in chosen}
        if len(left) == 1 < len(self._numbers):
            _log.warning(
                "warning: %s leaves one value of %s (%s) of %d, and scores of labels need several; raise it",
                limit,
                self._label_field,
                list(self._numbers)[left.pop()],
                len(self._numbers),
            )


class _GroupedAudioCheck:
    """Looks at the headers of audio files, those of many rows at once.

    Args:
        index: its `seconds` are put right.
        limits: what is too short or too long.
        progress: as for `read_manifests`.
    """

    def __init__(self, index: RowIndex, limits: Limits, progress: Progress | None) -> None:
        self._index, self._check, self._progress = index, AudioCheck(limits), progress
        self._waiting: list[tuple[int, Row]] = []
        self._facts, self._looked, self._begun = FactsSum(), 0, time.monotonic()
        self._pool = ThreadPoolExecutor(LOOKERS, "shoal-look")
        self.total = 0
        """Rows that will be looked at; 0 as long as nobody knows."""
        self.kept: list[int] = []
        """Positions of the rows whose audio can be used."""
        self.bad: list[BadRow] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._pool:
            if kind is None and self._waiting:
                self._check_group()

    @property
    def facts(self) -> RowFacts:
        """Of the rows that are kept."""
        return self._facts.facts()

    def add(self, position: int, row: Row) -> None:
        """Look at a row, now or together with those that come after it."""
        self._waiting.append((position, row))
        if len(self._waiting) >= AT_ONCE:
            self._check_group()

    def _check_group(self) -> None:
        self._check.look((row for _, row in self._waiting), self._pool)
        for position, row in self._waiting:
            with _noting(row, self.bad):
                checked = self._check(row)
                self._index.seconds[position] = checked.duration
                self._facts.add(checked)
                self.kept.append(position)
        self._looked += len(self._waiting)
        self._waiting = []
        if self._progress is not None and time.monotonic() - self._begun > QUIET_SECONDS:
            if not self.total:
                self.total = sum(source.lines() for source in self._index.sources)
                self._progress("look at audio", 0, self.total)
            self._progress("look at audio", self._looked, max(self.total, self._looked))


@contextmanager
def _noting(row: RawRow | Row, bad: list[BadRow]) -> Iterator[None]:
    """A row that cannot be used joins `bad`."""
    try:
        yield
    except InputError as error:
        bad.append(BadRow(manifest=row.manifest, line=row.line, reason=error.what))


def _in_order(bad: Sequence[BadRow]) -> list[BadRow]:
    return sorted(bad, key=lambda row: (row.manifest, row.line))


def _dataset(refs: list[str], rows: Rows, broken: list[BadRow], bad_audio: list[BadRow], max_bad: float) -> Dataset:
    skipped = _in_order(broken + bad_audio)
    examined = len(rows) + len(bad_audio)
    bad_rows.warn(skipped, examined + len(broken))
    if not rows:
        raise ManifestError(
            f"no usable row: {bad_rows.named(skipped)}" if skipped else "no usable row", where=", ".join(refs)
        )
    return Dataset(refs, rows, skipped, max_bad, examined, list(bad_audio if max_bad < 1 else skipped))
