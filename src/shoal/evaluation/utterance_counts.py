"""Every utterance counted, block by block, and its text forgotten.

Scoring needs a few small numbers of each utterance, so that a corpus of any size is scored in the memory that these
take: about 100 bytes an utterance and system.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.evaluation.failures import LOOP, failures_of
from shoal.evaluation.scores import registry
from shoal.evaluation.scores.answers import answers_of
from shoal.evaluation.scores.edit_counts import EditCounts, word_errors_again
from shoal.statistics.arrays import Bools, Ints, Numbers

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score
    from shoal.evaluation.system_outputs import Output
    from shoal.tasks import Task

BLOCK = 500
"""Clips read and normalised at a time; sacrebleu holds the n-grams of a block, some 15 kB a clip."""


@dataclass(frozen=True, slots=True)
class UtteranceCounts:
    """One system over U clips."""

    statistics: Mapping[str, Numbers]
    """Score → its statistics (U, S)."""
    words: EditCounts
    """Edits between answer and reference, whatever the task: they tell large groups and telling examples."""
    disagreements: int
    """Utterances whose word errors jiwer and kaldialign count differently."""
    totals: Mapping[str, float]
    """Sums over the clips: what was generated, how long it took, what was cut."""
    failures: Ints
    """(U,): in what way they are wrong, see `failures_of`."""

    @property
    def loops(self) -> Bools:
        """(U,): which outputs loop."""
        return np.asarray(self.failures == LOOP)

    def select(self, clips: npt.NDArray[np.intp]) -> UtteranceCounts:
        """The counts of some clips, given by their indices; what is known as a sum stays that of all."""
        statistics = {name: table[clips] for name, table in self.statistics.items()}
        return replace(self, statistics=statistics, words=self.words.select(clips), failures=self.failures[clips])


@dataclass(slots=True)
class ClipTable:
    """What is known of U clips apart from what was said."""

    ids: Sequence[str]
    speakers: list[str | None] = field(default_factory=list)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    values: dict[str, list[str | None]] = field(default_factory=dict)
    """Manifest field → its value for every clip, as text; None where a clip has none."""
    known: set[str] = field(default_factory=lambda: {"speaker", "lang", "data"})
    """All fields there are."""
    langs: set[str | None] = field(default_factory=set)

    def add(self, outputs: Sequence[Output]) -> None:
        """Note the next clips."""
        self.speakers += [_shared(output.speaker) for output in outputs]
        self.seconds.extend(output.duration for output in outputs)
        for name, values in self.values.items():
            values += [_shared(_value(output, name)) for output in outputs]
        self.known.update(*(output.fields for output in outputs))
        self.langs.update(output.lang for output in outputs)

    def normaliser(self, task: Task) -> str:
        """The normalisers that `task` uses for these clips, with versions."""
        return ", ".join(sorted({task.normaliser(lang).label for lang in self.langs}))

    def scorer(self, task: Task, scores: Sequence[Score]) -> str:
        """What counts, and where characters count as words."""
        spaceless = sorted({str(lang) for lang in self.langs if task.unit(lang) == "char"})
        by_character = f" (characters as words: {', '.join(spaceless)})" if spaceless else ""
        return "; ".join(dict.fromkeys(score.signature for score in scores)) + by_character


def _shared(text: str | None) -> str | None:
    """One object for equal texts: clips of one group cost a pointer each."""
    return None if text is None else sys.intern(text)


def _value(output: Output, name: str) -> str | None:
    own = {"speaker": output.speaker, "lang": output.lang, "data": output.data or None}
    value = own.get(name) or output.fields.get(name)
    return None if value is None else str(value)


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
    if all(score.over(()) is score for score in registry.scores_of(task)):
        return None
    labels: set[str] = set()
    for block in blocks(ids):
        for output in (outputs[clip] for clip in block):
            labels.add(task.normaliser(output.lang)(output.text))
    return labels


def count_outputs(
    outputs: Mapping[str, Output],
    ids: Sequence[str],
    task: Task,
    scores: Sequence[Score],
    clips: ClipTable | None = None,
) -> UtteranceCounts:
    """Go once over the outputs of one system.

    Args:
        outputs: clip id → output.
        ids: U > 0 clips, in the order to keep.
        task: says how text is normalised and what a word is.
        scores: what is counted for.
        clips: is told of the clips too.
    """
    words: list[Numbers] = []
    statistics: dict[str, list[Numbers]] = {score.name: [] for score in scores}
    disagreements, totals, failures = 0, dict.fromkeys(_TOTALS.values(), 0.0), array("b")
    for block in blocks(ids):
        read = [outputs[clip] for clip in block]
        answers = answers_of(task, read)
        words.append(_compact(answers.word_edits.table))
        disagreements += int((answers.word_edits.errors != word_errors_again(*answers.words)).sum())
        for score in scores:
            statistics[score.name].append(_compact(score.statistics(answers)))
        failures.extend(failures_of(answers, read, only_loops=not scores[0].counts_errors))
        for attribute, name in _TOTALS.items():
            for output in read:
                totals[name] += getattr(output, attribute)
        if clips is not None:
            clips.add(read)
    return UtteranceCounts(
        statistics={name: np.concatenate(parts) for name, parts in statistics.items()},
        words=EditCounts(np.concatenate(words).astype(np.int32)),
        disagreements=disagreements,
        totals=totals,
        failures=np.frombuffer(failures, np.int8),
    )


def count_systems(
    outputs: Sequence[Mapping[str, Output]],
    ids: Sequence[str],
    task: Task,
    scores: Sequence[Score],
    fields: Sequence[str],
) -> tuple[list[UtteranceCounts], ClipTable]:
    """Go once over the outputs of every system (see `count_outputs`), and note the values of manifest `fields`."""
    clips = ClipTable(ids, values={name: [] for name in fields})
    first = count_outputs(outputs[0], ids, task, scores, clips)
    return [first, *(count_outputs(system, ids, task, scores) for system in outputs[1:])], clips
