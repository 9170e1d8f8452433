"""Rows of a data set to teacher-forced batches for measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shoal.data import Clip, Row
from shoal.data.batches import MAX_BATCH_SECONDS, batches
from shoal.decoder.prepare import prepare
from shoal.models.batch import PreparedBatch
from shoal.schema import InputKind

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

SILENCE = np.zeros(0, dtype=np.float32)


def prepared_batches(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    kind: InputKind,
    batch_size: int,
    *,
    rows: Sequence[Row] | None = None,
) -> Iterator[PreparedBatch]:
    """Batches of similar length with responses, padded on the right; bad audio leaves the data set on the way.

    Args:
        model: embeds them.
        data: decodes the audio.
        task: gives prompt and response.
        kind: what stands in the audio slot.
        batch_size: clips a batch at most.
        rows: some of the data set's rows; default all.
    """
    for part in batches(data.rows if rows is None else rows, max_clips=batch_size, max_seconds=MAX_BATCH_SECONDS):
        # The text input needs no samples; rows with bad audio have left `data.rows` in the speech pass before it.
        clips = list(data.clips(part)) if kind == "speech" else [Clip(row, SILENCE) for row in part]
        if clips:
            yield prepare(model, clips, task, input=kind, response=True, padding_side="right")
