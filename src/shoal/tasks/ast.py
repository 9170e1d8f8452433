"""Speech translation: write down in English what is said in another language."""

from __future__ import annotations

from typing import ClassVar

from shoal.data.clip import Row
from shoal.errors import ManifestError
from shoal.tasks.base import Normaliser, Task, Unit
from shoal.tasks.languages import primary
from shoal.tasks.normalisers import NONE


class Ast(Task):
    """Translation into English, scored by BLEU and chrF; the row has it under `translation`."""

    name: ClassVar[str] = "ast"
    title: ClassVar[str] = "speech translation"
    instruction: ClassVar[str] = "Translate the speech into English."
    needs_text: ClassVar[bool] = False
    scored_by: ClassVar[tuple[str, ...]] = ("BLEU", "chrF")

    def target(self, row: Row) -> str:
        """The translation.

        Raises:
            ManifestError: there is none, or `target_lang` says that it is in another language than English.
        """
        target_lang = row.fields.get("target_lang")
        if target_lang is not None and primary(str(target_lang)) != "en":
            raise ManifestError(
                f"target_lang is {target_lang!r}, and the task ast asks for English",
                where=row.place,
                fix="keep rows into English with --where target_lang=en",
            )
        return self.field(row, "translation")

    def normaliser(self, lang: str | None) -> Normaliser:
        """None but for white space: sacrebleu brings its own tokeniser."""
        del lang
        return NONE

    def unit(self, lang: str | None) -> Unit:
        """Words: `lang` is what is spoken, the answer is English."""
        del lang
        return "word"
