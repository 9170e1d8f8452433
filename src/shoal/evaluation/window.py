"""A stretch of the data set, read and embedded once for all systems.

Work goes in windows, so that memory does not grow with the data set: the rows of a window are embedded, every system
answers those it lacks, and the window is let go of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.data.batches import MAX_BATCH_SECONDS, batches
from shoal.data.clip import Clip, Row
from shoal.decoder.prepare import prepare
from shoal.evaluation.generate import clock
from shoal.machine import out_of_memory, return_memory
from shoal.prefetch import prefetch

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

WINDOW_BATCHES = 16
"""A window holds this many times the rows that are decoded at once: few enough to hold, many enough that the moments
when the last rows of a window leave slots empty count for little."""
WINDOW_SECONDS = 3600.0
"""Most audio in a window (s): with 25 positions a second, 0.7 GB of embeddings for an 8B decoder."""
READ_AHEAD = 4
"""Batches whose audio may wait for the encoder, where decoding has to end before it can go on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips of similar length, embedded up to where the answer begins, padded on the left."""

    clips: list[Clip]
    """Their samples are empty where the task takes only text."""
    prepared: PreparedBatch
    encode_seconds: float
    """Of the whole batch: encoder, projector and embedding."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows, and the batches that they were put into; rows whose audio cannot be used are in no batch."""

    rows: list[Row]
    batches: list[Batch]
    """Longest clips first."""


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """What the likelihood of given texts says about one clip; see `Output` for both."""

    choices: dict[str, float] | None = None
    loss: tuple[float, int] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """Clips that were read together, and, with the last of a window, its rows."""

    clips: list[Clip]
    rows: list[Row] | None


def windows(
    loaded: LoadedModel, data: Dataset, rows: Sequence[Row], indices: Iterable[int], task: Task, *, slots: int
) -> Iterator[Window]:
    """Read and embed rows, window after window, in the order of `indices`; audio is read ahead in a thread.

    On a GPU the thread also embeds, beside the decoding. On a CPU it does not: both would want the same cores.

    Args:
        loaded: embeds.
        data: reads the audio.
        rows: all rows.
        indices: of the rows to embed.
        task: what is asked; one that takes no speech is given no audio.
        slots: rows that are decoded at once: most clips in a batch, and what a window's size follows.
    """
    read = _read(data, _split(rows, indices, slots), slots, task)
    if embeds_beside(loaded, task):
        stretches = prefetch(_embedded(loaded, read, task), depth=WINDOW_BATCHES)
    else:
        stretches = _embedded(loaded, prefetch(read, depth=READ_AHEAD), task)
    embedded: list[Batch] = []
    for batch, window_rows in stretches:
        embedded += [] if batch is None else [batch]
        if window_rows is not None:
            yield Window(window_rows, embedded)
            embedded = []


def embeds_beside(loaded: LoadedModel, task: Task) -> bool:
    """Whether one thread may embed while another decodes with layers removed.

    Not with a model whose own forward pass embeds, since that is what changes, and not where answers are also judged,
    which embeds too.
    """
    return loaded.device.type == "cuda" and loaded.kind == "speech_llm" and task.answered_by == ("decode",)


def _embedded(
    loaded: LoadedModel, read: Iterable[_Read], task: Task
) -> Iterator[tuple[Batch | None, list[Row] | None]]:
    stream = torch.cuda.Stream(loaded.device) if loaded.device.type == "cuda" else None
    for chunk in read:
        with _on(stream):
            parts = embedded_in_parts(loaded, chunk.clips, task) if chunk.clips else []
        for part in parts[:-1]:
            yield part, None
        yield parts[-1] if parts else None, chunk.rows


def embedded_in_parts(loaded: LoadedModel, clips: list[Clip], task: Task) -> list[Batch]:
    """The clips in one batch; in several, where the encoder has no memory for all of them.

    Raises:
        torch.OutOfMemoryError: one clip alone is too much.
    """
    try:
        return [embed(loaded, clips, task)]
    except RuntimeError as error:
        if len(clips) == 1 or not out_of_memory(error):
            raise
    # Not in the handler: the error holds on to everything that was computed.
    return_memory()
    half = len(clips) // 2
    return embedded_in_parts(loaded, clips[:half], task) + embedded_in_parts(loaded, clips[half:], task)


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work of this block does not queue behind that of other threads, and is done at its end."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _split(rows: Sequence[Row], indices: Iterable[int], slots: int) -> Iterator[list[Row]]:
    """The rows of each window."""
    window: list[Row] = []
    seconds = 0.0
    for index in indices:
        row = rows[int(index)]
        if window and (len(window) >= WINDOW_BATCHES * slots or seconds + row.duration > WINDOW_SECONDS):
            yield window
            window, seconds = [], 0.0
        window.append(row)
        seconds += row.duration
    if window:
        yield window


def _read(data: Dataset, chunks: Iterable[list[Row]], slots: int, task: Task) -> Iterator[_Read]:
    for rows in chunks:
        parts = batches(rows, max_clips=slots, max_seconds=MAX_BATCH_SECONDS)
        for number, part in enumerate(parts, 1):
            yield _Read(read_clips(data, part, task), rows if number == len(parts) else None)


def read_clips(data: Dataset, rows: Sequence[Row], task: Task) -> list[Clip]:
    """The clips of `rows` whose audio can be used; without samples where the task takes only text."""
    if task.input == "speech":
        return list(data.clips(rows))
    return [Clip(row, np.zeros(0, dtype=np.float32)) for row in rows]


def embed(loaded: LoadedModel, clips: list[Clip], task: Task) -> Batch:
    """Embed clips up to where the answer begins."""
    start = clock(loaded.device)
    prepared = prepare(loaded, clips, task, input=task.input, response=False, padding_side="left")
    return Batch(clips, prepared, clock(loaded.device) - start)
