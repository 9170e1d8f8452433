"""What a task is: what is asked, what the right answer is, and how answers are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from shoal.data.clip import Row
from shoal.errors import ManifestError
from shoal.schema import InputKind

Unit = Literal["word", "char"]
"""What an error rate counts."""
Answering = Literal["decode", "choose", "loss"]


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


class Task(ABC):
    """One task. Languages are BCP 47 tags or ISO 639 codes (`en`, `en-US`, `eng`), None where unknown."""

    name: ClassVar[str]
    title: ClassVar[str]
    instruction: ClassVar[str]
    """What the model is asked, after the audio."""
    needs_text: ClassVar[bool]
    """Whether a row without `text` cannot be used."""
    inputs: ClassVar[tuple[InputKind, ...]] = ("speech", "text")
    """What may fill the audio slot."""
    alone: ClassVar[bool] = False
    """Whether the response stands alone: no prompt, no audio, only what the tokeniser puts first."""
    answered_by: ClassVar[tuple[Answering, ...]] = ("decode",)
    """It writes freely, or picks the likeliest of `choices`, or the loss of the right answer is taken."""
    scored_by: ClassVar[tuple[str, ...]] = ()
    """Names in `shoal.evaluate.quality`, the headline first; none where no answer is asked."""

    @abstractmethod
    def target(self, row: Row) -> str:
        """The right answer to a row, in one line.

        Raises:
            ManifestError: the row does not hold it.
        """

    def choices(self, row: Row) -> list[str]:
        """The answers that a row allows, the right one among them; empty where any text may be an answer."""
        del row
        return []

    def field(self, row: Row, name: str) -> str:
        """A field of the manifest as one line of text.

        Raises:
            ManifestError: the row does not have it, or it is empty or not text.
        """
        value = row.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"{name} is not text", where=row.place, fix="write it in quotation marks")
        text = " ".join((value or "").split())
        if not text:
            raise ManifestError(f"no {name}", where=row.place, fix=f"add the field {name}")
        return text

    def transcript(self, row: Row) -> str:
        """What is said, in one line: it takes the place of the audio in the text input.

        Raises:
            ManifestError: the row has no text.
        """
        text = " ".join(row.text.split())
        if not text:
            raise ManifestError("no text", where=row.place, fix="add the transcript")
        return text

    @abstractmethod
    def normaliser(self, lang: str | None) -> Normaliser:
        """How answers in `lang` are normalised before they are compared."""

    @abstractmethod
    def unit(self, lang: str | None) -> Unit:
        """What the headline error rate counts in `lang`."""

    def words(self, text: str, lang: str | None) -> str:
        """`text`, normalised, with a space between what `unit` counts: between all characters where that is `char`."""
        if self.unit(lang) == "word":
            return text
        return " ".join(character for character in text if not character.isspace())
