"""Telephone prompts in five languages, parallel by file name: English to write down, the others to translate."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import debian
from common import (
    RATE,
    Clip,
    as_clip,
    held_out,
    key,
    make,
    read_audio,
    read_rows,
    spell_digits,
    test_texts,
    texts_of,
    without_leaks,
)

LANGS = ("es", "fr", "it", "ru")
"""Translated into English."""
_TEST_SHARE, _VALIDATION_SHARE = 0.1, 0.05
_NOT_SPEECH = re.compile(r"[\[\]()<>{}*#@=/\\]")
NOTICE = """
Prompts of the Asterisk PBX (Debian asterisk-core-sounds 1.6.1). Changes: resampled from 8 to 16 kHz, peak set to 0.7.
en and es: Allison Smith; fr: June Wallack; financed by Digium, Inc. and, for fr, Unlimitel and BGM Informatique:
CC BY-SA 3.0 (https://creativecommons.org/licenses/by-sa/3.0/).
it: Carlo Flora (http://www.carloflora.com), translated by Silvia Petrin; ru: Maxim Topal (http://www.ivrvoice.ru):
CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/).
"""

Prompts = Mapping[str, str]
"""File name without suffix → what is said."""


def parse(lines: Iterable[str]) -> dict[str, str]:
    """A `core-sounds-XX.txt`: `name: what is said`, comments after `;`. What is no speech is left out."""
    found = {}
    for line in lines:
        name, colon, text = line.lstrip("\ufeff").strip().partition(":")
        said = tidy(name.strip(), text)
        if colon and said and not name.startswith((";", "silence/")):
            found[name.strip()] = said
    return found


def tidy(name: str, text: str) -> str:
    """What is said, or nothing where that is not sure: remarks, tones, keys by their sign."""
    said = text.strip().removeprefix(f"{name}:")
    if name.startswith("letters/"):
        said = re.sub(r"\[.*\]", "", said)  # `at [@]`
    said = " ".join(re.sub(r"[\"“”«»]", "", said).split())
    return "" if _NOT_SPEECH.search(said) else said


def english(prompts: Prompts) -> dict[str, str]:
    """The prompts as they are to be written: figures as words, none where that is not sure."""
    spelled = {name: spell_digits(text) for name, text in prompts.items()}
    return {name: text for name, text in spelled.items() if not re.search(r"\d", text)}


def fields(prompts: Mapping[str, Prompts], names: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Clip path → its row without the split.

    Args:
        prompts: by language.
        names: by language, the prompts that have a sound file.
    """
    en = english(prompts["en"])
    rows = {}
    for lang in ("en", *LANGS):
        speaker = "ast" if lang == "en" else f"ast{lang}"
        for name in sorted(set(names[lang]) & set(prompts[lang]) & set(en)):
            row = {"lang": lang, "speaker": speaker, "task": "asr", "text": en[name]}
            if lang != "en":
                row |= {
                    "task": "ast",
                    "text": prompts[lang][name],
                    "translation": en[name],
                    "target_lang": "en",
                }
            rows[f"audio/{lang}/{name}.flac"] = row
    return rows


def split_like(rows: Mapping[str, dict[str, str]], manifests: Sequence[Path]) -> dict[str, str]:
    """`test` for the rows of these manifests' test splits, `train` for the others."""
    tests = {
        _identity(row)
        for manifest in manifests
        for row in read_rows(manifest)
        if str(row.get("split", "")).startswith("test")
    }
    return {path: "test" if _identity(row) in tests else "train" for path, row in rows.items()}


def split_anew(rows: Mapping[str, dict[str, str]], seed: int) -> dict[str, str]:
    """A tenth of the prompts, by what they say in English, to `test`, the same in every language."""
    return {
        path: "test" if held_out(key(row.get("translation", row["text"])), _TEST_SHARE, seed) else "train"
        for path, row in rows.items()
    }


def with_splits(
    rows: Mapping[str, dict[str, str]], splits: Mapping[str, str], forbidden: set[str], seed: int
) -> list[dict[str, str]]:
    """The rows with `path` and `split`; what the test split says is in no other, a twentieth is for validation."""
    said_in_test = forbidden.union(*(texts_of(rows[path]) for path in rows if splits[path] == "test"))
    found = []
    for path, row in rows.items():
        split = splits[path]
        if split != "test":
            if texts_of(row) & said_in_test:
                continue
            kept = held_out("validation " + key(row.get("translation", row["text"])), _VALIDATION_SHARE, seed)
            split = "validation" if kept else "train"
        found.append({"path": path, **row, "split": split})
    return found


def _identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    return str(row.get("lang")), key(str(row.get("text") or "")), key(str(row.get("translation") or ""))


def resampled(path: Path) -> Any:
    """A sound file as a clip."""
    return as_clip(read_audio(path)), RATE


def run(out: Path, seed: int, exclude: Sequence[Path], workers: int) -> None:
    """Make the data set; with `exclude`, its test split is that of those manifests."""
    sounds = {lang: _sounds(lang) for lang in ("en", *LANGS)}
    rows = fields({lang: _prompts(lang) for lang in sounds}, sounds)
    splits = split_like(rows, exclude) if exclude else split_anew(rows, seed)
    forbidden = test_texts(exclude)
    clips = [
        Clip(row["path"], sounds[row["lang"]][_name(row["path"])], row)
        for row in with_splits(rows, splits, forbidden, seed)
    ]
    make(out, without_leaks(clips, forbidden), resampled, workers=workers, notice=NOTICE)


def _name(path: str) -> str:
    return path.split("/", 2)[2].removesuffix(".flac")


def _prompts(lang: str) -> dict[str, str]:
    package = f"asterisk-core-sounds-{lang}"
    file = debian.unpacked(package) / f"usr/share/doc/{package}/core-sounds-{lang}.txt.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return parse(lines)


def _sounds(lang: str) -> dict[str, Path]:
    """Prompt name → its sound file."""
    folder = debian.unpacked(f"asterisk-core-sounds-{lang}-wav") / "usr/share/asterisk/sounds"
    found = {}
    for path in sorted(folder.rglob("*.wav")):
        name = path.relative_to(folder).as_posix().split("/", 1)[1]  # below the folder of the speaker
        found[name.removesuffix(".wav")] = path
    return found
