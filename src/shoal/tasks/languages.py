"""Languages as manifests write them, and what their scripts mean for scoring."""

from __future__ import annotations

from importlib.resources import files

import yaml

from shoal.errors import UsageError

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages whose script does not put spaces between words: a word error rate would count sentences."""

_TABLE = yaml.safe_load((files("shoal.tasks") / "languages.yaml").read_text(encoding="utf-8"))
_NAMES: dict[str, str] = _TABLE["names"]
_CODES: dict[str, str] = {spelling: code for code, spellings in _TABLE["spellings"].items() for spelling in spellings}


def primary(lang: str | None) -> str | None:
    """The primary language of a tag: `en` for `en-US`, `EN_gb`, `eng`, `English`; None for None or nothing.

    Only languages that are scored in a way of their own are translated to two letters; others keep their
    spelling.
    """
    parts = (lang or "").strip().lower().replace("_", "-").split("-")
    if "yue" in parts[1:]:
        return "yue"
    return _CODES.get(parts[0], parts[0]) or None


def language_name(lang: str) -> str:
    """The English name of a language: `German` for `de` or `de-CH`.

    Raises:
        UsageError: it has none here.
    """
    if (name := _NAMES.get(primary(lang) or "")) is None:
        raise UsageError(
            f"no name for the language {lang!r}",
            where="target_lang",
            fix=f"write the instruction without {{language}}, or use {', '.join(_NAMES)}",
        )
    return name
