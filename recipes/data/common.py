"""What every data script needs: clips made once, rows, manifests, and texts compared.

A clip's path says what is in it, so that a file which is there need not be made again. Clips and manifests are
written under a temporary name and renamed: what has its final name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from shoal.errors import InputError, ManifestError

RATE = 16_000
MANIFEST = "manifest.jsonl"
MAX_SECONDS = 30.0
"""The window of a Whisper encoder; longer clips are left out."""
MIN_SECONDS = 0.2
_PEAK = 0.7
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FIELDS = ("lang", "speaker", "split", "task", "text", "translation", "target_lang")

Audio = tuple[np.ndarray[Any, np.dtype[np.float32]], int]
"""Samples (mono, or frames × channels) and their rate."""


class ClipError(Exception):
    """This clip cannot be made; the others can."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip to make, and what its row says."""

    path: str
    """Relative to the output folder, always `/`."""
    source: Any
    """What `Produce` makes the audio from; must pickle."""
    fields: dict[str, str] = field(default_factory=dict)


Produce = Callable[[Any], Audio]


# Texts


def spell_digits(text: str) -> str:
    """English words for single digits that stand alone: `press 1` → `press one`."""
    return re.sub(r"(?<![\w.])\d(?![\w]|\.\d)", lambda found: _DIGITS[int(found.group())], text)


def key(text: str) -> str:
    """The text as it is compared: no case, no punctuation, single digits as words."""
    folded = unicodedata.normalize("NFKC", spell_digits(text)).casefold().replace("’", "'")
    return " ".join(re.sub(r"[^\w']|_", " ", folded).split())


def digest(*parts: object) -> str:
    """A short name for these values, the same everywhere."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


def held_out(name: str, share: float, seed: int) -> bool:
    """Whether `name` falls into a split of this share; does not depend on what else there is."""
    return int(digest("split", seed, name), 16) / 16**16 < share


def generator(*parts: object) -> random.Random:
    """A generator of random numbers for this purpose alone."""
    return random.Random(digest(*parts))


# Leaks


def read_rows(manifest: Path) -> list[dict[str, Any]]:
    """The rows of a manifest.

    Raises:
        ManifestError: it cannot be read.
    """
    try:
        return [json.loads(line) for line in manifest.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot be read ({type(error).__name__})", where=str(manifest)) from None


def texts_of(row: dict[str, Any]) -> set[str]:
    """Text and translation of a row, as compared."""
    return {found for name in ("text", "translation") if (found := key(str(row.get(name) or "")))}


def test_texts(manifests: Iterable[Path]) -> set[str]:
    """Every text and translation of the rows whose split starts with `test`."""
    return {
        text
        for manifest in manifests
        for row in read_rows(manifest)
        if str(row.get("split", "")).startswith("test")
        for text in texts_of(row)
    }


def without_leaks(clips: Iterable[Clip], forbidden: set[str]) -> list[Clip]:
    """The clips, less those outside the test splits that say something forbidden."""
    return [clip for clip in clips if clip.fields["split"].startswith("test") or not texts_of(clip.fields) & forbidden]


# Files


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name at the end, or is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write NeMo JSONL, all or nothing."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_audio(path: Path) -> Audio:
    """Samples of a file.

    Raises:
        ClipError: libsndfile cannot read it.
    """
    try:
        return soundfile.read(path, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise ClipError(f"cannot be read ({error})") from None


def as_clip(audio: Audio, *, speed: float = 1.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Mono, 16 kHz, peak at 0.7; `speed` plays it faster and higher.

    Raises:
        ClipError: it is silent, too short or too long.
    """
    samples, rate = audio
    samples = samples.mean(axis=1) if samples.ndim > 1 else samples
    if rate * speed != RATE:
        samples = soxr.resample(samples, rate * speed, RATE, quality="HQ")
    peak = float(np.abs(samples).max(initial=0.0))
    seconds = len(samples) / RATE
    if not MIN_SECONDS <= seconds <= MAX_SECONDS or not peak > 1e-3:
        raise ClipError(f"{seconds:.2f} s with peak {peak:.4f}")
    return (samples * (_PEAK / peak)).astype(np.float32)


def _make(clip: Clip, out: Path, produce: Produce) -> float | str:
    """Make one clip if it is not there: its seconds, or what is wrong."""
    path = out / clip.path
    try:
        if not path.exists():
            samples, rate = produce(clip.source)
            with atomic(path) as temporary:
                soundfile.write(temporary, samples, rate, format="FLAC", subtype="PCM_16")
        return round(soundfile.info(path).duration, 3)
    except ClipError as error:
        return str(error)


# The work


def make(
    out: Path, clips: Sequence[Clip], produce: Produce, *, workers: int = 2, notice: str = ""
) -> list[dict[str, Any]]:
    """Make every clip that is not there, then write the manifest.

    Args:
        out: the folder of the data set.
        clips: in the order of the rows.
        produce: from a clip's `source` to audio at 16 kHz, see `as_clip`; runs in other processes.
        workers: processes.
        notice: licence and attribution, written beside the manifest.

    Returns:
        The rows.

    Raises:
        InputError: no clip could be made.
    """
    started = time.monotonic()
    there = sum((out / clip.path).exists() for clip in clips)
    say(f"{len(clips)} clips for {out}, {there} of them there")
    rows, failed = _rows(clips, _all_made(out, clips, produce, workers))
    for line in failed[:5]:
        say(f"left out: {line}")
    if not rows:
        raise InputError("no clip could be made", where=str(out))
    if notice:
        with atomic(out / "LICENCE.txt") as temporary:
            temporary.write_text(notice.strip() + "\n", encoding="utf-8")
    write_manifest(out / MANIFEST, rows)
    say(_summary(rows, len(failed), time.monotonic() - started))
    return rows


def _all_made(out: Path, clips: Sequence[Clip], produce: Produce, workers: int) -> Iterator[float | str]:
    one = partial(_make, out=out, produce=produce)
    if workers < 2:
        yield from map(one, clips)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(one, clips, chunksize=16)


def _rows(clips: Sequence[Clip], made: Iterator[float | str]) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for number, (clip, result) in enumerate(zip(clips, made, strict=True), 1):
        if isinstance(result, str):
            failed.append(f"{clip.path}: {result}")
        else:
            fields = {name: clip.fields[name] for name in _FIELDS if name in clip.fields}
            rows.append({"audio_filepath": clip.path, "duration": result, **fields})
        if number % 1000 == 0:
            say(f"{number} of {len(clips)}")
    return rows, failed


def _summary(rows: Sequence[dict[str, Any]], failed: int, seconds: float) -> str:
    hours = sum(row["duration"] for row in rows) / 3600
    splits = ", ".join(f"{count} {name}" for name, count in Counter(row["split"] for row in rows).items())
    return f"{len(rows)} rows ({splits}), {hours:.2f} h of speech, {failed} left out, {seconds:.0f} s"


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
