"""A folder of audio files with their transcripts beside them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from shoal.data.sources.base import RawRow, Source
from shoal.errors import ManifestError
from shoal.schema import BadRow

# Also formats libsndfile cannot read: such a file must show up as a bad row instead of being passed over.
_AUDIO_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aiff",
        ".aif",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
        ".sph",
        ".nist",
        ".m4a",
        ".mp4",
        ".aac",
        ".wma",
        ".webm",
        ".amr",
    }
)


def read_folder(folder: Path) -> Source:
    """Read every audio file under `folder`, in the order of their paths.

    The transcript is the same-named `.txt`, or a line of LibriSpeech's `*.trans.txt` in the same folder; a
    file with neither has no `text`.

    Raises:
        ManifestError: there is no audio file, or the folder cannot be read.
    """
    name, rows, bad = str(folder), list[RawRow](), list[BadRow]()
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _AUDIO_SUFFIXES)
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror})", where=str(folder)) from None
    if not files:
        raise ManifestError(
            "the folder holds no audio file", where=str(folder), fix="give a manifest or a folder of audio + .txt"
        )
    for number, path in enumerate(files, 1):
        try:
            rows.append(RawRow(name, number, _fields(path, folder), folder=folder))
        except (OSError, UnicodeDecodeError) as error:
            reason = f"the transcript of {path.name} cannot be read ({type(error).__name__})"
            bad.append(BadRow(manifest=name, line=number, reason=reason))
    return Source(name=name, label=folder.resolve().name or "folder", rows=rows, bad=bad)


def _fields(path: Path, folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = {"audio_filepath": path.relative_to(folder).as_posix()}
    text_file = path.with_suffix(".txt")
    if text_file.is_file():
        fields["text"] = text_file.read_text(encoding="utf-8-sig").strip()
    elif path.stem in (transcripts := _librispeech_transcripts(path.parent)):
        fields["text"] = transcripts[path.stem]
    return fields


@lru_cache(maxsize=1)
def _librispeech_transcripts(folder: Path) -> dict[str, str]:
    """Utterance id → text, from the `*.trans.txt` files of one chapter."""
    lines = (line for file in sorted(folder.glob("*.trans.txt")) for line in file.read_text("utf-8").splitlines())
    return {name: text.strip() for name, _, text in (line.partition(" ") for line in lines) if name}
