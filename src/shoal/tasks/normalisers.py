"""The text normalisers of the field, by language, and two plain ones."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

from shoal._version import __version__
from shoal.tasks.languages import primary
from shoal.tasks.settings import NormaliserName

REMEMBERED = 8192
"""Texts whose normalised form is kept, a few megabytes."""


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Text as it is compared; the name and version belong to every score."""

    name: str
    version: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Normalise `text`; words are separated by single spaces, none at the ends."""
        return " ".join(self.function(text).split())

    @property
    def label(self) -> str:
        """Name and version, as stored with a score."""
        return f"{self.name} {self.version}"


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

    # Half a millisecond a text, and every system brings the same references again.
    function = lru_cache(maxsize=REMEMBERED)(EnglishTextNormalizer())
    return Normaliser("whisper-english", version("whisper-normalizer"), function)


@lru_cache(maxsize=1)
def _basic() -> Normaliser:
    from whisper_normalizer.basic import BasicTextNormalizer

    return Normaliser("whisper-basic-marks", version("whisper-normalizer"), BasicTextNormalizer(preserve_marks=True))


NONE = Normaliser("none", __version__, str)
"""Text as it is, but for white space: case and punctuation count, as sacrebleu scores translations."""


def _bare(text: str) -> str:
    kept = ("" if unicodedata.category(char).startswith("P") else char for char in text)
    return "".join(kept).lower()


LABEL = Normaliser("label", __version__, _bare)
"""Lower case without punctuation: `Happy.` and `happy` are the same label."""


def _squad(text: str) -> str:
    """`normalize_answer` of SQuAD's `evaluate-v1.1.py`."""
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare)


_SQUAD = Normaliser("squad", "1.1", _squad)


def squad(lang: str | None) -> Normaliser:
    """SQuAD's for English and where no language is named (Rajpurkar et al. 2016); no articles are taken elsewhere.

    Elsewhere all of Unicode's punctuation goes, as in MLQA (Lewis et al. 2020).
    """
    return _SQUAD if primary(lang) in ("en", None) else LABEL


NORMALISERS: Mapping[NormaliserName, Callable[[str | None], Normaliser]] = {
    "whisper": whisper,
    "none": lambda _: NONE,
    "label": lambda _: LABEL,
    "squad": squad,
}
"""Name in a task's YAML → the normaliser for a language."""
