"""Short spoken descriptions of Tux Paint's stamps, in a dozen languages, with their English text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import debian
from common import (
    RATE,
    Clip,
    as_clip,
    digest,
    held_out,
    key,
    make,
    read_audio,
    spell_digits,
    test_texts,
    without_leaks,
)

_SHARE = 0.05
_SOUND = re.compile(r"(?P<stamp>.+)_desc(?:_(?P<locale>[A-Za-z]+(?:_[A-Z]+)?))?\.(?:ogg|wav)")
NOTICE = """
Spoken descriptions of Tux Paint's stamps (Debian tuxpaint-stamps-default 2022.06.04), Copyright 2002-2022 by Bill
Kendrick and various contributors (see CONTRIBUTORS.txt of Tux Paint Stamps, https://tuxpaint.org/), under the GNU
General Public License, version 2: https://www.gnu.org/licenses/old-licenses/gpl-2.0.html
Changes: mixed to mono, resampled to 16 kHz, peak set to 0.7.
"""


def parse(lines: Iterable[str]) -> dict[str, str]:
    """A stamp's text file: locale → description; the first line is English, then `xx.utf8=…`."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        locale, equals, text = line.strip().partition(".utf8=")
        if number == 0 and not equals:
            found["en"] = locale
        elif equals and text.strip():
            found[locale] = " ".join(text.split())
    return {locale: text for locale, text in found.items() if text}


def language(locale: str | None) -> str:
    """`pt_BR` → `pt`; a sound without a locale is English."""
    return (locale or "en").split("_")[0]


def fields(locale: str | None, texts: dict[str, str]) -> dict[str, str] | None:
    """The row of a sound, without its split; None where its text or the English text is not there."""
    text, english = texts.get(locale or "en"), spell_digits(texts.get("en", ""))
    if not text or not english or not english.isascii() or re.search(r"[\d()\[\]]", english):
        return None
    lang = language(locale)
    row = {"lang": lang, "speaker": f"tux{lang}", "task": "asr", "text": english}
    if lang != "en":
        row |= {"task": "ast", "text": text, "translation": english, "target_lang": "en"}
    return row


def resampled(path: Path) -> Any:
    """A sound file as a clip."""
    return as_clip(read_audio(path)), RATE


def clips(folder: Path, seed: int) -> list[Clip]:
    """Every sound of the stamps in `folder` that has its texts; files that are the same only once."""
    found, seen = [], set()
    for path in sorted(folder.rglob("*_desc*")):
        sound = _SOUND.fullmatch(path.name)
        words = path.with_name(f"{sound['stamp']}.txt") if sound else None
        if sound is None or words is None or not words.is_file():
            continue
        row = fields(sound["locale"], parse(words.read_text("utf-8").splitlines()))
        same = (sound["locale"], hashlib.sha256(path.read_bytes()).digest())
        if row is None or same in seen:
            continue
        seen.add(same)
        kept = held_out(key(row.get("translation", row["text"])), _SHARE, seed)
        name = digest(path.relative_to(folder).as_posix())
        split = "validation" if kept else "train"
        found.append(Clip(f"audio/{row['lang']}/{name}.flac", path, {**row, "split": split}))
    return found


def run(out: Path, seed: int, exclude: Sequence[Path], workers: int) -> None:
    """Make the data set."""
    folder = debian.unpacked("tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    wanted = without_leaks(clips(folder, seed), test_texts(exclude))
    make(out, wanted, resampled, workers=workers, notice=NOTICE)
