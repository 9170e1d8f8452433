"""Emotion recognition: name the emotion that the speaker expresses."""

from __future__ import annotations

from typing import ClassVar

from shoal.data.clip import Row
from shoal.schema import InputKind
from shoal.tasks.base import Normaliser, Task, Unit
from shoal.tasks.normalisers import LABEL


class Ser(Task):
    """Emotion in one word, scored by accuracy, unweighted average recall and macro-F1; the row has it under `emotion`.

    Speech only: how something is said does not stand in its transcript.
    """

    name: ClassVar[str] = "ser"
    title: ClassVar[str] = "emotion recognition"
    instruction: ClassVar[str] = "What emotion does the speaker express? Answer with one word."
    needs_text: ClassVar[bool] = False
    inputs: ClassVar[tuple[InputKind, ...]] = ("speech",)
    scored_by: ClassVar[tuple[str, ...]] = ("accuracy", "UAR", "macro-F1")

    def target(self, row: Row) -> str:
        """The label."""
        return self.field(row, "emotion")

    def normaliser(self, lang: str | None) -> Normaliser:
        """Lower case, no punctuation."""
        del lang
        return LABEL

    def unit(self, lang: str | None) -> Unit:
        """Words."""
        del lang
        return "word"
