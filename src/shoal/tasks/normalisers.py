"""The text normalisers of the field, by language, and two plain ones."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.metadata import version

from shoal._version import __version__
from shoal.tasks.base import Normaliser
from shoal.tasks.languages import primary


def whisper(lang: str | None) -> Normaliser:
    """Whisper's normaliser for a language (Radford et al. 2022, appendix C).

    English has its own: numbers, contractions, British spellings. All other languages, and rows that name
    none, get the basic one, with combining marks kept: as published it turns them into spaces, which takes
    the vowel signs from Hindi, Tamil, Thai … and makes wrong words right.
    """
    return _english() if primary(lang) == "en" else _basic()


@lru_cache(maxsize=1)
def _english() -> Normaliser:
    from whisper_normalizer.english import EnglishTextNormalizer

    return Normaliser("whisper-english", version("whisper-normalizer"), EnglishTextNormalizer())


@lru_cache(maxsize=1)
def _basic() -> Normaliser:
    from whisper_normalizer.basic import BasicTextNormalizer

    return Normaliser(
        "whisper-basic-marks", version("whisper-normalizer"), BasicTextNormalizer(preserve_marks=True)
    )


NONE = Normaliser("none", __version__, str)
"""Text as it is, but for white space: case and punctuation count, as sacrebleu scores translations."""


def _bare(text: str) -> str:
    kept = ("" if unicodedata.category(each).startswith("P") else each for each in text)
    return "".join(kept).lower()


LABEL = Normaliser("label", __version__, _bare)
"""Lower case without punctuation: `Happy.` and `happy` are the same label."""
