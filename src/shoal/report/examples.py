"""What the systems wrote, side by side, with their errors marked."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.report.bundle import Bundle
from shoal.report.parts import Section
from shoal.report.word_diff import Word, align, error_count
from shoal.schema import Example, Scores
from shoal.score_tables import failure_name

ID, TITLE, SHORT = "examples", "What the systems wrote", "Examples"
SHOWN = 4
SYSTEMS_SHOWN = 5


@dataclass(frozen=True)
class ShownOutput:
    """One system's output with its errors."""

    system: str
    words: list[Word]
    failure: str = ""
    """In what way it is wrong, where that has a name."""

    @property
    def errors(self) -> int:
        """Words that differ from the reference."""
        return error_count(self.words)


@dataclass(frozen=True)
class ExampleClip:
    """One clip: the reference and all outputs, the first few shown at once."""

    id: str
    reference: str
    shown: list[ShownOutput]
    more: list[ShownOutput]
    counted: str = "error"
    """What a differing word is: an error of recognition, a mere difference elsewhere."""


def build(bundle: Bundle) -> Section:
    """A handful of clips, the rest behind a click."""
    clips = [clip for named in bundle.scores for clip in _clips(named.document)]
    if not clips:
        missing = "Not measured: no scores with examples were given. “shoal evaluate” keeps some."
        return Section(ID, TITLE, SHORT, missing=missing)
    view = {"shown": clips[:SHOWN], "more": clips[SHOWN:]}
    return Section(ID, TITLE, SHORT, template="examples.html", view=view)


def _clips(scores: Scores) -> list[ExampleClip]:
    counted = "error" if scores.headline == "WER" else "difference"
    return [_clip(example, counted) for example in scores.examples]


def _clip(example: Example, counted: str) -> ExampleClip:
    outputs = [
        ShownOutput(system, align(example.reference, text), failure_name(example, system))
        for system, text in example.outputs.items()
    ]
    return ExampleClip(example.id, example.reference, outputs[:SYSTEMS_SHOWN], outputs[SYSTEMS_SHOWN:], counted)
