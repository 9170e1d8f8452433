"""From a raw row to a `Row`: what its fields must be, and what its audio must be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shoal.data.audio import read_header, tolerance
from shoal.data.clip import Row
from shoal.data.sources import RawRow
from shoal.errors import AudioError, ManifestError


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too short or too long to be an utterance (s)."""

    min_seconds: float = 0.1
    max_seconds: float = 120.0


def parse_row(raw: RawRow, row_id: str, *, needs_text: bool, lang: str | None, duration: float | None = None) -> Row:
    """Check the fields of a raw row; its audio is not touched.

    Args:
        raw: the row as its source holds it.
        row_id: unique in the data set.
        needs_text: whether a row without `text` is bad.
        lang: the language of rows that name none.
        duration: what `check_audio` found, where it has been asked.

    Returns:
        The row; without `duration`, its own is the manifest's, 0 where there is none.

    Raises:
        ManifestError: a field is missing, of the wrong type or out of range.
    """
    fields = raw.fields
    try:
        said = _seconds(fields, "duration", zero_is_bad=True) or 0.0
        return Row(
            id=row_id,
            audio=raw.folder / audio_path(fields),
            duration=said if duration is None else duration,
            offset=_seconds(fields, "offset", zero_is_bad=False) or 0.0,
            text=_transcript(fields, needs_text=needs_text),
            lang=_optional_text(fields, "lang") or lang,
            speaker=_name(fields, "speaker"),
            fields=fields,
            manifest=raw.manifest,
            line=raw.line,
            blob=raw.blob,
        )
    except ValueError as error:
        raise ManifestError(str(error), where=f"{raw.manifest}:{raw.line}") from None


def audio_path(fields: dict[str, Any]) -> str:
    """`audio_filepath` as it stands.

    Raises:
        ValueError: missing, empty or not text.
    """
    value = fields.get("audio_filepath")
    if value is None:
        raise ValueError("no audio_filepath")
    if not isinstance(value, str):
        raise ValueError(f"audio_filepath is not text: {_shown(value)}")
    if not value.strip():
        raise ValueError("audio_filepath is empty")
    return value


class AudioCheck:
    """Compares rows with the headers of their audio files; many segments of a few files cost few looks.

    Args:
        limits: what is too short or too long.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lengths: dict[Path, float] = {}

    def __call__(self, row: Row) -> Row:
        """See `check_audio`.

        Raises:
            AudioError: the file cannot be used, or disagrees with the row.
        """
        length = None if row.blob is not None else self._lengths.get(row.audio)
        return check_audio(row, read_header(row).seconds if length is None else length, self._limits)

    def look(self, rows: Iterable[Row], pool: Executor) -> None:
        """Read the headers of several rows at once: where files come over a network, waiting is most of the work.

        What is wrong with a file is said when its row is checked.
        """
        files = {row.audio: row for row in rows if row.blob is None and row.audio not in self._lengths}
        if len(self._lengths) + len(files) > MOST_LENGTHS:
            self._lengths.clear()
        for audio, length in zip(files, pool.map(_length_if_sound, files.values()), strict=True):
            if length is not None:
                self._lengths[audio] = length


MOST_LENGTHS = 4096
"""Files whose lengths `AudioCheck` remembers."""


def _length_if_sound(row: Row) -> float | None:
    # libsndfile keeps one message for all threads, so errors are left to a look in the main thread.
    try:
        return read_header(row).seconds
    except AudioError:
        return None


def check_audio(row: Row, length: float, limits: Limits) -> Row:
    """Compare a row with its audio file, which lasts `length` seconds.

    Without `offset` the row is the whole file, so `duration` must agree with it; with `offset` the segment
    must lie inside the file. A difference within `tolerance` is rounding, and the file is right.

    Returns:
        The row with the duration that can be read.

    Raises:
        AudioError: the file disagrees with the row.
    """
    name, rest = row.audio_name, length - row.offset
    if rest <= 0:
        raise AudioError(f"offset {row.offset:g} s is outside {name}, which lasts {length:.2f} s", where=row.place)
    if row.duration - rest > tolerance(row.duration):
        raise AudioError(
            f"duration {row.duration:g} s is more than {name} has ({rest:.2f} s from the offset)", where=row.place
        )
    whole = row.fields.get("offset") is None
    if whole and row.duration and rest - row.duration > tolerance(row.duration):
        raise AudioError(
            f"duration {row.duration:g} s, but {name} lasts {length:.2f} s (a segment needs an offset)", where=row.place
        )
    seconds = min(row.duration or rest, rest)
    if not limits.min_seconds <= seconds <= limits.max_seconds:
        raise AudioError(
            f"{name} is {'too long' if seconds > limits.max_seconds else 'too short'}: {seconds:.2f} s "
            f"({limits.min_seconds:g} to {limits.max_seconds:g} s are taken)",
            where=row.place,
        )
    return replace(row, duration=seconds)


def _seconds(fields: dict[str, Any], key: str, *, zero_is_bad: bool) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is not a number: {_shown(value)}")
    if not math.isfinite(value) if isinstance(value, float) else abs(value) > 10**9:
        raise ValueError(f"{key} is {_shown(value)}")
    if value < 0 or (zero_is_bad and value == 0):
        raise ValueError(f"{key} is {_shown(value)}, it must be {'above 0' if zero_is_bad else 'at least 0'}")
    return float(value)


def _transcript(fields: dict[str, Any], *, needs_text: bool) -> str:
    text = _optional_text(fields, "text")
    if needs_text and not (text and text.strip()):
        raise ValueError("no text" if text is None else "text is empty")
    return (text or "").strip()


def _optional_text(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is not text: {_shown(value)}")
    return value


def _name(fields: dict[str, Any], key: str) -> str | None:
    """A name; corpora number their speakers, so integers are names too."""
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _optional_text(fields, key)


def _shown(value: Any) -> str:
    shown = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return shown if len(shown) <= 40 else shown[:37] + "..."
