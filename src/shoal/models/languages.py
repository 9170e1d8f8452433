"""Languages as manifests write them, and as the models that can be told one know them."""

from __future__ import annotations

from collections.abc import Collection

from shoal.tasks.languages import primary

SAME = {"nb": "no", "fil": "tl", "tl": "fil", "iw": "he"}
"""Other codes of the same language: models differ in which they use."""


def code_among(lang: str, codes: Collection[str]) -> str | None:
    """The one of `codes` (`de`, `yue`) that `lang` means (`de-CH`, `German`, `de`); None: none of them."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    tag = primary(lang) or ""
    code = TO_LANGUAGE_CODE.get(tag, tag)
    return next((name for name in (code, SAME.get(code)) if name in codes), None)
