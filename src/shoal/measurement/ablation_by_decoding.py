"""Ablation by decoding: the errors of the task itself without each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.run import decode_systems
from shoal.evaluation.scores.registry import headline, scores_of
from shoal.evaluation.settings import DecodingSettings
from shoal.evaluation.systems import check_can_answer
from shoal.evaluation.utterance_counts import count_outputs
from shoal.measurement.importance import ImportanceSums
from shoal.progress import Progress
from shoal.schema.words import Candidate
from shoal.selection import manual
from shoal.statistics import Floats, Ints
from shoal.tasks.settings import NEEDS

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.evaluation.scores.base import Score
    from shoal.evaluation.system_outputs import Output
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part
    from shoal.tasks import Task


def decode_without(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    candidates: Sequence[Candidate],
    *,
    refused: Mapping[int, str],
    part: Part = "layer",
    out: Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> ImportanceSums:
    """The rise of the task's error rate without each candidate, every clip decoded greedily.

    What is counted is up to the task's first score that one clip has by itself: word errors of WER, wrong answers of
    accuracy, 1 - chrF of a translation, for BLEU means nothing for one clip.

    Args:
        model: a SpeechLLM, unpruned.
        data: the clips.
        task: what is asked.
        candidates: layers to go without, each ascending.
        refused: candidates that cannot be removed, by place, and why.
        part: what of the layers goes.
        out: folder for the raw outputs; running again there decodes only what is missing.
        batch_size: clips a batch.
        progress: called with ("transcribe", done, in all).

    Raises:
        UsageError: the model cannot hear, or nothing is decoded for the task.
    """
    task = task.on(data.rows).only(NEEDS[headline(task).name])
    check_can_answer(model, task)
    task = without_unmeasurable_loss(task, model, data.rows)
    depth = model.info().depth
    plans = [
        manual(model.ref, depth, candidate, allow_last=True).model_copy(update={"part": part})
        for column, candidate in enumerate(candidates)
        if column not in refused
    ]
    systems = decode_systems(
        model, data, task, DecodingSettings(batch_size=batch_size), plans=plans, out=out, progress=progress
    )
    ids = tuple(sorted(row.id for row in data.rows))
    score = next((score for score in scores_of(task) if score.of_one_clip), headline(task))
    lost = {tuple(system.removed): _lost(score, system.outputs.outputs, ids, task) for system in systems}
    full, counts, unit = lost[()]
    values = np.full((len(ids), len(candidates)), np.nan)
    for column, candidate in enumerate(candidates):
        if column not in refused:
            values[:, column] = lost[candidate][0] - full
    return ImportanceSums(
        "ablation",
        "score",
        "text",
        part,
        tuple(candidates),
        ids,
        values,
        counts,
        full,
        dict(refused),
        unit,
        "decoding",
    )


def _lost(
    score: Score, outputs: Mapping[str, Output], ids: Sequence[str], task: Task
) -> tuple[Floats, Ints, str]:
    """Losses (U,), what they are counted in (U,), and what their ratio is called; see `Score.losses`."""
    counts = count_outputs(outputs, ids, task, [score])
    return score.losses(counts.statistics[score.name].astype(np.float64))
