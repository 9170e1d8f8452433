"""Ablation by decoding: the errors of the task itself without each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.measures import Accuracy, BestOfAccepted, Chrf, LossScore, answers, headline, scores
from shoal.evaluation.output_file import Output
from shoal.evaluation.run import header
from shoal.evaluation.settings import TokenLimit
from shoal.evaluation.systems import check_can_answer, open_systems
from shoal.evaluation.transcribe import Transcriber
from shoal.measurement.importance import Floats, ImportanceSums, Ints
from shoal.progress import Progress
from shoal.schema.words import Candidate
from shoal.selection import manual
from shoal.tasks.settings import NEEDS

if TYPE_CHECKING:
    from shoal.data import Dataset
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

    Recognition counts word errors, emotion wrong answers. BLEU does not add up over clips, so translation counts
    1 - chrF of each clip.

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
    limit = TokenLimit()
    depth = model.info().depth
    plans = [
        manual(model.ref, depth, candidate, allow_last=True).model_copy(update={"part": part})
        for place, candidate in enumerate(candidates)
        if place not in refused
    ]
    systems = open_systems(model, plans, against=None, out=out, header=header(model, data, task, limit))
    Transcriber(data, task, limit, batch_size).run(systems, progress)
    ids = tuple(sorted(row.id for row in data.rows))
    counted = {
        tuple(each.removed): _errors(task, [each.outputs.outputs[clip] for clip in ids]) for each in systems
    }
    full, counts, unit = counted[()]
    values = np.full((len(ids), len(candidates)), np.nan)
    for place, candidate in enumerate(candidates):
        if place not in refused:
            values[:, place] = counted[candidate][0] - full
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


def _errors(task: Task, outputs: Sequence[Output]) -> tuple[Floats, Ints, str]:
    """Errors (U,), what they are counted in (U,), and what their ratio is called."""
    score, answered = headline(task), answers(task, outputs)
    if isinstance(score, Accuracy | BestOfAccepted):
        right = score.statistics(answered)
        return right[:, 1] - right[:, 0], right[:, 1].astype(np.int64), "error rate"
    if isinstance(score, LossScore):
        nats = score.statistics(answered)
        return nats[:, 0], nats[:, 1].astype(np.int64), "loss"
    if chrf := next((each for each in scores(task) if isinstance(each, Chrf)), None):
        similar = np.nan_to_num(chrf.value(chrf.statistics(answered)))
        return 1 - similar / 100, np.ones(len(outputs), dtype=np.int64), "1 - chrF"
    table = score.statistics(answered)
    return table[:, 1:].sum(1), table[:, [0, 1, 3]].sum(1).astype(np.int64), score.name
