"""Controls: the same clips with audio that is not theirs, to tell hearing from guessing.

A model that no longer listens may write fluent text all the same. It then writes as good a text with the audio of
another clip, or with silence. Only the rows differ, so any model can be controlled, its class unseen.
"""

from __future__ import annotations

import io
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from shoal.data import Dataset, Row
from shoal.data.clip import SAMPLE_RATE
from shoal.errors import ManifestError, UsageError
from shoal.evaluation.output import AUDIO_OF, hash_of
from shoal.terms import Control

if TYPE_CHECKING:
    from shoal.tasks import Task

STRETCH = 8
"""Clips of similar length that exchange their audio, at least."""
SEED = 0
"""Of the exchange. It is no option, so that shards and later runs agree on who hears whom."""
OPTION = "--controls"

Partners = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ControlClips:
    """All clips of an evaluation, with audio that is not theirs."""

    name: Control
    data: Dataset


def check_hears(task: Task) -> None:
    """Make sure that there is audio to replace.

    Raises:
        UsageError: the task is given none.
    """
    if task.input != "speech":
        raise UsageError(f"the task {task.name} hears no audio", where=OPTION, fix="leave it out")


def control_clips(data: Dataset, task: Task) -> list[ControlClips]:
    """The clips with shuffled and with silent audio; no audio is read yet.

    Raises:
        UsageError: the task hears nothing.
        ManifestError: more than half of the clips have the same reference.
    """
    check_hears(task)
    rows = data.rows
    partners = _partners(rows, task)

    def of_another(index: int) -> Row:
        return with_audio_of(rows[index], rows[int(partners[index])])

    def silent(index: int) -> Row:
        return silenced(rows[index])

    return [
        ControlClips("shuffled", data.only(_MadeRows(of_another, range(len(rows))))),
        ControlClips("silent", data.only(_MadeRows(silent, range(len(rows))))),
    ]


def with_audio_of(row: Row, other: Row) -> Row:
    """A row that is heard as another; its output says so, and counts for no other partner."""
    fields = row.fields | {AUDIO_OF: other.id}
    return replace(row, audio=other.audio, duration=other.duration, offset=other.offset, blob=other.blob, fields=fields)


def silenced(row: Row) -> Row:
    """A row whose audio is zeros of the same length."""
    return replace(row, audio=Path("silence"), offset=0.0, blob=partial(_silence, row.duration))


def _silence(seconds: float) -> bytes:
    """A WAV file of zeros."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * max(1, round(seconds * SAMPLE_RATE))))
    return stream.getvalue()


class _MadeRows(Sequence[Row]):
    """Rows that are made when they are asked for."""

    def __init__(self, made: Callable[[int], Row], indices: range) -> None:
        self._made, self._indices = made, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> _MadeRows: ...
    def __getitem__(self, position: int | slice) -> Row | _MadeRows:
        if isinstance(position, slice):
            return _MadeRows(self._made, self._indices[position])
        return self._made(self._indices[position])


def _partners(rows: Sequence[Row], task: Task) -> Partners:
    """Whose audio each row is given: of the same data set and language, where that is possible."""
    kinds: list[tuple[str, str]] = []
    seconds, texts = [], []
    for row in rows:
        kinds.append((row.data, row.lang or ""))
        seconds.append(row.duration)
        texts.append(hash_of(task.normaliser(row.lang)(task.target(row))))
    return derangement(kinds, seconds, texts)


def derangement(kinds: Sequence[object], seconds: Sequence[float], texts: Sequence[int]) -> Partners:
    """For each of N clips another one, each once, with another text and about as long.

    Clips of a kind are ordered by length and cut into stretches. In each, clips are put in a random order, equal texts
    side by side, and turned by a random step: one that is longer than the longest run of equal texts.

    Args:
        kinds: clips of the same kind exchange their audio, where texts allow it.
        seconds: lengths.
        texts: numbers that stand for the references.

    Raises:
        ManifestError: more than half of the clips have the same text.
    """
    order = sorted(range(len(texts)), key=lambda clip: (str(kinds[clip]), seconds[clip], clip))
    stretches: list[list[int]] = []
    for _, same in groupby(order, key=lambda clip: str(kinds[clip])):
        clips = list(same)
        for part in np.array_split(clips, max(1, len(clips) // STRETCH)):
            if stretches and not _can_turn(stretches[-1], texts):
                stretches[-1] += part.tolist()
            else:
                stretches.append(part.tolist())
    while len(stretches) > 1 and not _can_turn(stretches[-1], texts):
        last = stretches.pop()
        stretches[-1] += last
    if stretches and not _can_turn(stretches[0], texts):
        raise ManifestError(
            "more than half of the clips have the same reference, so no other audio would be wrong for them",
            where=OPTION,
            fix="leave it out, or take other clips",
        )
    generator, partners = np.random.default_rng(SEED), np.zeros(len(texts), dtype=np.intp)
    for stretch in stretches:
        ring, step = _ring(stretch, texts, generator)
        partners[ring] = np.roll(ring, -step)
    return partners


def _most(clips: Sequence[int], texts: Sequence[int]) -> int:
    """How often the commonest text is there."""
    return max(Counter(texts[clip] for clip in clips).values())


def _can_turn(clips: Sequence[int], texts: Sequence[int]) -> bool:
    return 2 * _most(clips, texts) <= len(clips)


def _ring(clips: Sequence[int], texts: Sequence[int], generator: np.random.Generator) -> tuple[Partners, int]:
    """The clips in a random order, equal texts side by side, and a step to turn them by."""
    shuffled = generator.permutation(clips)
    first = {text: place for place, text in reversed([(place, texts[clip]) for place, clip in enumerate(shuffled)])}
    ring = np.array(sorted(shuffled, key=lambda clip: first[texts[clip]]), dtype=np.intp)
    most = _most(clips, texts)
    return ring, int(generator.integers(most, len(clips) - most + 1))
