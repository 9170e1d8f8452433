"""What a system answered, as scores compare it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from shoal.evaluation.scores.edit_counts import EditCounts, word_counts
from shoal.tasks.base import Unit, spaced

if TYPE_CHECKING:
    from shoal.evaluation.output import Output
    from shoal.tasks import Task


@dataclass(frozen=True)
class Answers:
    """What one system answered to U utterances, ready to be compared.

    Every field but the first two may be empty: nothing of that kind is known. All texts are normalised as the task
    says.
    """

    references: Sequence[str]
    """U right answers."""
    hypotheses: Sequence[str]
    """U answers written freely."""
    units: Sequence[Unit] = ()
    """What an error rate counts in each; empty: words."""
    accepted: Sequence[Sequence[str]] = ()
    """All right answers to each, the reference among them; empty: the reference alone."""
    chosen: Sequence[str | None] = ()
    """The likeliest of the answers that were allowed, None where none were scored; empty: nowhere."""
    chosen_per_byte: Sequence[str | None] = ()
    """The one with the highest log-likelihood per byte of UTF-8."""
    losses: Sequence[tuple[float, int] | None] = ()
    """Cross-entropy of the reference, teacher-forced: nats and tokens; None where not measured; empty: nowhere."""
    sources: Sequence[str | None] = ()
    """What is said, where the answer is a translation of it; None where the row does not tell; empty: nowhere."""

    def __len__(self) -> int:
        """U."""
        return len(self.references)

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """References and answers with a space between what WER counts."""
        return self._each_by_unit(spaced)

    @cached_property
    def characters(self) -> tuple[list[str], list[str]]:
        """References and answers as CER counts them, without white space where the script has none.

        There it was not written: a normaliser put it where a comma was.
        """
        return self._each_by_unit(lambda text, unit: "".join(text.split()) if unit == "char" else text)

    @cached_property
    def word_edits(self) -> EditCounts:
        """Edit operations on the words of each."""
        return word_counts(*self.words)

    def _each_by_unit(self, write: Callable[[str, Unit], str]) -> tuple[list[str], list[str]]:
        units: Sequence[Unit] = self.units or ["word"] * len(self)
        references, hypotheses = (
            [write(text, unit) for text, unit in zip(texts, units, strict=True)]
            for texts in (self.references, self.hypotheses)
        )
        return references, hypotheses


def answers_of(task: Task, outputs: Sequence[Output]) -> Answers:
    """Outputs as the scores of `task` compare them: normalised, and chosen from what was scored."""
    normalisers = [task.normaliser(output.lang) for output in outputs]
    pairs = list(zip(normalisers, outputs, strict=True))
    return Answers(
        references=[normalise(output.text) for normalise, output in pairs],
        hypotheses=[normalise(output.pred_text) for normalise, output in pairs],
        units=[task.unit(output.lang) for output in outputs],
        accepted=[
            [normalise(right) for right in task.accepted(output.text, output.fields)] for normalise, output in pairs
        ],
        chosen=[_likeliest(output, normalise, lambda _: 1) for normalise, output in pairs],
        chosen_per_byte=[
            _likeliest(output, normalise, lambda answer: len(answer.encode())) for normalise, output in pairs
        ],
        losses=[output.loss for output in outputs],
        sources=[output.source for output in outputs],
    )


def _likeliest(output: Output, normalise: Callable[[str], str], size: Callable[[str], int]) -> str | None:
    """The allowed answer with the highest log-likelihood over `size`, the first among equals."""
    if not output.choices:
        return None
    values = {answer: value / max(1, size(answer)) for answer, value in output.choices.items()}
    known = {answer: -math.inf if math.isnan(value) else value for answer, value in values.items()}
    return normalise(max(known, key=known.__getitem__))
