"""What a task is: what is asked, what the right answer is, and how answers are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from shoal.data.clip import Row
from shoal.errors import ManifestError, UsageError
from shoal.schema import InputKind, Scope
from shoal.tasks.languages import WITHOUT_SPACES, primary
from shoal.tasks.normalisers import NORMALISERS, Normaliser
from shoal.tasks.settings import NEEDS, Answering, TaskSettings

Unit = Literal["word", "char"]
"""What an error rate counts."""


class Task:
    """One task. Languages are BCP 47 tags or ISO 639 codes (`en`, `en-US`, `eng`), None where unknown.

    Args:
        settings: what the YAML says.
    """

    plain_text: ClassVar[bool] = False
    """Whether the response stands alone: no prompt, no audio, only what the tokeniser puts first."""
    answers_in_speech: ClassVar[bool] = False
    """Whether the answer is speech: the clip itself, after its words."""
    bleu_tokenizer: str | None = None
    """Of sacrebleu, where BLEU needs another one than `13a`."""

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        """As `--task` and reports have it."""
        return self.settings.name

    @property
    def title(self) -> str:
        """In words."""
        return self.settings.title

    @property
    def instruction(self) -> str:
        """What the model is asked, after the audio."""
        return self.settings.instruction

    @property
    def inputs(self) -> tuple[InputKind, ...]:
        """What may fill the audio slot."""
        return self.settings.inputs

    @property
    def input(self) -> InputKind:
        """What fills it when the task is asked: speech, unless only text may."""
        return "speech" if "speech" in self.inputs else "text"

    @property
    def asked(self) -> str:
        """What of the task decides measurements of a given answer, besides the answer."""
        # A text that stands alone is read as it stands, whatever the model's style of answers.
        return "as it stands" if self.plain_text else self.instruction

    @property
    def answered_by(self) -> tuple[Answering, ...]:
        """How the model is asked."""
        return self.settings.answered_by

    @property
    def scored_by(self) -> tuple[str, ...]:
        """Names in `shoal.evaluation.scores.registry`, the headline first."""
        return self.settings.scored_by

    @property
    def transcribes(self) -> bool:
        """Whether the answer is what is said, in the language in which it is said."""
        return self.settings.kind == "asr"

    @property
    def needs_text(self) -> bool:
        """Whether a row without `text` cannot be used."""
        return self.settings.fields.get("text") == "text"

    @property
    def label_field(self) -> str | None:
        """The field of a manifest that holds the label of a row; None where the task has no labels."""
        return self.settings.fields.get("label")

    @property
    def decides(self) -> dict[str, Any]:
        """What of the task decides raw outputs, for their header; only name and instruction for plain decoding."""
        more: dict[str, Any] = {}
        if self.answered_by != ("decode",):
            more["answered_by"] = list(self.answered_by)
        if "choose" in self.answered_by and self.settings.labels:
            more["labels"] = list(self.settings.labels)
        return {"name": self.name, "instruction": self.instruction, **more}

    def check_scope(self, scope: Scope, where: str) -> None:
        """Refuse a scope without positions in this task.

        Raises:
            UsageError: a text that stands alone has neither prompt nor audio.
        """
        if self.plain_text and scope in ("prompt", "audio"):
            raise UsageError(
                f"in the task {self.name} a text stands alone, without {scope}",
                where=where,
                fix="use response, last (the last token of the text) or all",
            )

    def only(self, *ways: Answering) -> Self:
        """The same task, answered in these ways alone and scored by what they decide."""
        kept = tuple(name for name in self.scored_by if NEEDS[name] in ways)
        return type(self)(self.settings.model_copy(update={"answered_by": ways, "scored_by": kept}))

    def on(self, rows: Iterable[Row]) -> Self:
        """The task as it is on these rows: what they decide, such as a set of labels that the YAML leaves open."""
        del rows
        return self

    def target(self, row: Row) -> str:
        """The right answer to a row, in one line; the transcript, unless the task asks for something else.

        Raises:
            ManifestError: the row does not hold it.
        """
        return self.transcript(row)

    @property
    def asks_for_the_text(self) -> bool:
        """Whether the right answer is the `text` of a row."""
        return type(self).target is Task.target and self.settings.fields.get("text", "text") == "text"

    def accepted(self, text: str, fields: Mapping[str, Any]) -> list[str]:
        """All answers that count as right: the target `text` first, and what else stands in the row's fields."""
        del fields
        return [text]

    def choices(self, row: Row) -> list[str]:
        """The answers that a row allows, the right one among them; empty where any text may be an answer."""
        del row
        return []

    def field(self, row: Row, role: str) -> str:
        """What the row holds for a role (`label`, `translation` …), as one line of text.

        Raises:
            ManifestError: the row does not have it, or it is empty or not text.
        """
        name = self.settings.fields[role]
        value = row.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"{name} is not text", where=row.place, fix="write it in quotation marks")
        return self._line(value or "", name, row)

    def transcript(self, row: Row) -> str:
        """What is said, in one line: it takes the place of the audio in the text input.

        Raises:
            ManifestError: the row has no text.
        """
        name = self.settings.fields.get("text", "text")
        return self._line(row.text, name, row) if name == "text" else self.field(row, "text")

    def _line(self, value: str, name: str, row: Row) -> str:
        text = " ".join(value.split())
        if not text:
            fix = "add the transcript" if name == "text" else f"add the field {name}"
            raise ManifestError(f"no {name}", where=row.place, fix=fix)
        return text

    def normaliser(self, lang: str | None) -> Normaliser:
        """How answers in `lang` are normalised before they are compared."""
        return NORMALISERS[self.settings.normaliser](self._answered_in(lang))

    def unit(self, lang: str | None) -> Unit:
        """What an error rate counts in `lang`: `char` where the script of the answer has no spaces, else `word`."""
        return "char" if primary(self._answered_in(lang)) in WITHOUT_SPACES else "word"

    def _answered_in(self, lang: str | None) -> str | None:
        return self.settings.target_lang or lang

    def words(self, text: str, lang: str | None) -> str:
        """`text`, normalised, with a space between what `unit` counts: between all characters where that is `char`."""
        return spaced(text, self.unit(lang))


def spaced(text: str, unit: Unit) -> str:
    """`text` with a space between what `unit` counts."""
    if unit == "word":
        return text
    return " ".join(character for character in text if not character.isspace())
