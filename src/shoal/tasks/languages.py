"""Languages as manifests write them, and what their scripts mean for scoring."""

from __future__ import annotations

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages whose script does not put spaces between words: a word error rate would count sentences."""

_SPELLINGS = {
    "en": ("eng", "english"),
    "zh": ("zho", "chi", "cmn", "chinese", "mandarin"),
    "yue": ("cantonese",),
    "ja": ("jpn", "japanese"),
    "th": ("tha", "thai"),
    "lo": ("lao",),
    "km": ("khm", "khmer"),
    "my": ("mya", "bur", "burmese"),
    "bo": ("bod", "tib", "tibetan"),
    "dz": ("dzo", "dzongkha"),
}
_CODES = {spelling: code for code, spellings in _SPELLINGS.items() for spelling in spellings}


def primary(lang: str | None) -> str | None:
    """The primary language of a tag: `en` for `en-US`, `EN_gb`, `eng`, `English`; None for None or nothing.

    Only languages that are scored in a way of their own are translated to two letters; others keep their
    spelling.
    """
    parts = (lang or "").strip().lower().replace("_", "-").split("-")
    if "yue" in parts[1:]:
        return "yue"
    return _CODES.get(parts[0], parts[0]) or None
