"""Language modelling: the transcripts as plain text, to see what the LLM itself loses."""

from __future__ import annotations

from typing import ClassVar

from shoal.data.clip import Row
from shoal.schema import InputKind
from shoal.tasks.base import Normaliser, Task, Unit
from shoal.tasks.normalisers import NONE


class Lm(Task):
    """The text stands alone; measured by its loss. Nothing is asked, so there is no answer to score."""

    name: ClassVar[str] = "lm"
    title: ClassVar[str] = "language modelling"
    instruction: ClassVar[str] = "Continue the text."
    needs_text: ClassVar[bool] = True
    inputs: ClassVar[tuple[InputKind, ...]] = ("text",)
    alone: ClassVar[bool] = True

    def target(self, row: Row) -> str:
        """The transcript."""
        return self.transcript(row)

    def normaliser(self, lang: str | None) -> Normaliser:
        """None but for white space: no texts are compared."""
        del lang
        return NONE

    def unit(self, lang: str | None) -> Unit:
        """Words."""
        del lang
        return "word"
