"""Speech translation: write down in one language what is said in another."""

from __future__ import annotations

from importlib.util import find_spec

from shoal.data.clip import Row
from shoal.errors import ManifestError
from shoal.tasks.base import Task
from shoal.tasks.languages import WITHOUT_SPACES, language_name, primary
from shoal.tasks.settings import TaskSettings


class Ast(Task):
    """Translation into the target language, scored by BLEU and chrF.

    Raises:
        UsageError: the instruction asks for a language whose name is not known.
    """

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self._into = settings.target_lang or "en"
        asked = settings.instruction
        self._instruction = asked.replace("{language}", language_name(self._into)) if "{language}" in asked else asked
        self.bleu_tokenizer = _tokenizer(primary(self._into))

    @property
    def instruction(self) -> str:
        """What the model is asked, with the name of the target language."""
        return self._instruction

    def target(self, row: Row) -> str:
        """The translation.

        Raises:
            ManifestError: there is none, or the row's `target_lang` says that it is in another language.
        """
        target_lang = row.fields.get("target_lang")
        if target_lang is not None and primary(str(target_lang)) != primary(self._into):
            raise ManifestError(
                f"target_lang is {target_lang!r}, and the task {self.name} asks for {language_name(self._into)}",
                where=row.place,
                fix=f"keep rows into {language_name(self._into)} with --where target_lang={self._into}",
            )
        return self.field(row, "translation")


def _tokenizer(lang: str | None) -> str | None:
    """Of sacrebleu for a target language: single characters where a script has no spaces and nothing finds its words.

    Japanese and Korean have tokenisers that need the package MeCab; without it characters are counted, and the
    signature of the score says so.
    """
    if lang in ("ja", "ko"):
        packages = {"ja": "MeCab", "ko": "mecab_ko"}
        return f"{lang}-mecab" if find_spec(packages[lang]) else "char"
    if lang in ("zh", "yue"):
        return "zh"
    return "char" if lang in WITHOUT_SPACES else None
