"""Every utterance counted, block by block, and its text forgotten.

Scoring needs a few small numbers of each utterance, so that a corpus of any size is scored in the memory that these
take: about 100 bytes an utterance and system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shoal.evaluation import measures
from shoal.evaluation.edit_counts import (
    EditCounts,
    Ints,
    char_counts,
    compound_errors,
    scorer_name,
    second_scorer_name,
    word_counts,
    word_errors_again,
)
from shoal.evaluation.scores.errors import characters, units_apart
from shoal.statistics import Floats

if TYPE_CHECKING:
    from shoal.evaluation.measures import Answers, Score
    from shoal.evaluation.output_file import Output
    from shoal.tasks import Task

BLOCK = 500
"""Clips read and normalised at a time; sacrebleu holds the n-grams of a block, some 15 kB a clip."""
Numbers = npt.NDArray[np.number[Any]]


@dataclass(frozen=True, slots=True)
class UtteranceCounts:
    """One system over U clips."""

    words: EditCounts
    chars: EditCounts
    compounds: Ints | None
    """(U,): word errors with compounds merged; None but for recognition."""
    disagreements: int
    measures: Mapping[str, Numbers]
    """Score → its statistics (U, S)."""
    totals: Mapping[str, float]
    """Sums over the clips: what was generated, how long it took, what was cut."""


@dataclass(slots=True)
class ClipTable:
    """What is known of U clips apart from what was said."""

    ids: Sequence[str]
    speakers: list[str | None] = field(default_factory=list)
    values: dict[str, list[str | None]] = field(default_factory=dict)
    """Manifest field → its value for every clip, as text; None where a clip has none."""
    known: set[str] = field(default_factory=lambda: {"speaker", "lang", "data"})
    """All fields there are."""
    _shared: dict[str, str] = field(default_factory=dict)

    def add(self, outputs: Sequence[Output]) -> None:
        """Note the next clips."""
        self.speakers += [self._share(output.speaker) for output in outputs]
        for name, values in self.values.items():
            values += [self._share(_value(output, name)) for output in outputs]
        self.known.update(*(output.fields for output in outputs))

    def _share(self, text: str | None) -> str | None:
        """One object for equal texts: clips of one group cost a pointer each."""
        return None if text is None else self._shared.setdefault(text, text)


def _value(output: Output, name: str) -> str | None:
    own = {"speaker": output.speaker, "lang": output.lang, "data": output.data or None}
    value = own.get(name) or output.fields.get(name)
    return None if value is None else str(value)


class NormalisationNotes:
    """Says how outputs were made ready: the normalisers, and where characters counted as words."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._langs: set[str | None] = set()

    def note(self, outputs: Sequence[Output]) -> None:
        """Remember the languages."""
        self._langs.update(output.lang for output in outputs)

    @property
    def label(self) -> str:
        """The normalisers used, with versions."""
        return ", ".join(sorted({self._task.normaliser(lang).label for lang in self._langs}))

    @property
    def scorer(self) -> str:
        """What counted, and where characters counted as words."""
        spaceless = sorted({str(lang) for lang in self._langs if self._task.unit(lang) == "char"})
        by_character = f" (characters as words: {', '.join(spaceless)})" if spaceless else ""
        return f"{scorer_name()}, {second_scorer_name()}{by_character}"


class UtteranceCounter:
    """Counts the outputs of one system, a block at a time.

    Args:
        task: says how text is normalised and what a word is.
        measures: scores of the task besides error rates.
    """

    def __init__(self, task: Task, measures: Sequence[Score]) -> None:
        self._task, self._measures = task, measures
        self._words: list[Numbers] = []
        self._chars: list[Numbers] = []
        self._compounds: list[Numbers] = []
        self._statistics: dict[str, list[Numbers]] = {score.name: [] for score in measures}
        self._disagreements = 0
        self._totals = dict.fromkeys(_TOTALS.values(), 0.0)

    def add(self, outputs: Sequence[Output]) -> None:
        """Count the next clips."""
        answers = measures.answers(self._task, outputs)
        self._align(answers)
        for score in self._measures:
            self._statistics[score.name].append(_compact(score.statistics(answers)))
        for attribute, name in _TOTALS.items():
            for output in outputs:
                self._totals[name] += getattr(output, attribute)

    def _align(self, answers: Answers) -> None:
        references, hypotheses = units_apart(answers)
        words = word_counts(references, hypotheses)
        again = word_errors_again(references, hypotheses)
        self._disagreements += int((words.errors != again).sum())
        self._words.append(_compact(words.table))
        self._chars.append(_compact(char_counts(*characters(answers)).table))
        if self._task.name == "asr":
            self._compounds.append(_compact(compound_errors(references, hypotheses)))

    def tally(self) -> UtteranceCounts:
        """What was counted so far."""
        return UtteranceCounts(
            words=EditCounts(np.concatenate(self._words).astype(np.int32)),
            chars=EditCounts(np.concatenate(self._chars).astype(np.int32)),
            compounds=np.concatenate(self._compounds).astype(np.int64) if self._compounds else None,
            disagreements=self._disagreements,
            measures={name: np.concatenate(parts) for name, parts in self._statistics.items()},
            totals=self._totals,
        )


_TOTALS = {
    "truncated": "truncated",
    "tokens": "generated_tokens",
    "encode_seconds": "encode_seconds",
    "prefill_seconds": "prefill_seconds",
    "decode_seconds": "decode_seconds",
}
"""Attribute of an output → field of `SystemScores` that holds its sum."""


def _compact(table: Numbers) -> Numbers:
    """The same numbers in the smallest type that holds them; fractions stay as they are."""
    if table.size == 0 or (table != np.round(table)).any():
        return table
    kinds = [np.min_scalar_type(int(bound)) for bound in (table.min(), table.max())]
    return table.astype(np.result_type(*kinds))


def blocks(ids: Sequence[str], size: int = BLOCK) -> Iterator[list[str]]:
    """`ids` in order, `size` at a time."""
    left = iter(ids)
    while block := list(islice(left, size)):
        yield block


def label_set(task: Task, outputs: Mapping[str, Output], ids: Sequence[str]) -> set[str] | None:
    """All references, normalised, if a score of `task` is an average over them, else None."""
    if all(score.over(()) is score for score in measures.scores(task)):
        return None
    found: set[str] = set()
    for block in blocks(ids):
        for output in (outputs[clip] for clip in block):
            found.add(task.normaliser(output.lang)(output.text))
    return found


def tallied(
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    task: Task,
    measures: Sequence[Score],
    fields: Sequence[str],
) -> tuple[list[UtteranceCounts], ClipTable, NormalisationNotes]:
    """Go once over all outputs of all systems.

    Args:
        outputs: for each system clip id → output.
        ids: U clips, in the order to keep.
        task: says how text is normalised and what a word is.
        measures: scores of the task besides error rates.
        fields: manifest fields to note the values of.
    """
    counters = [UtteranceCounter(task, measures) for _ in outputs]
    clips, texts = ClipTable(ids, values={name: [] for name in fields}), NormalisationNotes(task)
    for block in blocks(ids):
        for place, (counter, found) in enumerate(zip(counters, outputs, strict=True)):
            read = [found[clip] for clip in block]
            counter.add(read)
            if place == 0:
                clips.add(read)
                texts.note(read)
    return [counter.tally() for counter in counters], clips, texts


def sums(statistics: Numbers) -> Floats:
    """(S,): the sums of (U, S)."""
    return statistics.sum(axis=0, dtype=np.float64)
