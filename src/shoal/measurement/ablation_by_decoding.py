"""Ablation by decoding: the errors of the task itself without each candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shoal.evaluation.decode_systems import decode_systems
from shoal.evaluation.empty_references import warn_of_empty_references
from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.model_checks import check_can_answer
from shoal.evaluation.scores.registry import headline, scores_of
from shoal.evaluation.settings import DecodingSettings
from shoal.evaluation.utterance_counts import UtteranceCounts, count_outputs
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import ImportanceRequest
from shoal.selection import manual
from shoal.statistics import Floats, Ints
from shoal.tasks.settings import NEEDS

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score


def decode_without(request: ImportanceRequest, losses: ImportanceSums) -> ImportanceSums:
    """The rise of the task's error rate without each candidate, every clip decoded greedily.

    What is counted is up to the task's first score that one clip has by itself: word errors of WER, wrong answers of
    accuracy, 1 - chrF of a translation, for BLEU means nothing for one clip.

    Args:
        request: on what; raw outputs go to its folder `out/ablation`, where only what is missing is decoded.
        losses: of the same candidates; those without a value, and those that a race dropped, are not decoded.

    Raises:
        UsageError: the model cannot hear, or nothing is decoded for the task.
    """
    model, data, task = request.model, request.data, request.task
    task = task.on(data.rows).only(NEEDS[headline(task).name])
    check_can_answer(model, task)
    task = without_unmeasurable_loss(task, model, data.rows)
    dropped = np.flatnonzero(np.isnan(losses.values).any(0)).tolist()
    refused = {**dict.fromkeys(dropped, "dropped by the race, so not decoded"), **losses.refused}
    decoded = {index: layers for index, layers in enumerate(losses.candidates) if index not in refused}
    plans = [
        manual(model.ref, len(model.layers), layers, allow_last=True).model_copy(update={"part": losses.part})
        for layers in decoded.values()
    ]
    settings = DecodingSettings(batch_size=request.options.batch_size)
    out = None if request.out is None else request.out / "ablation"
    systems = decode_systems(model, data, task, settings, plans=plans, out=out, progress=request.progress)
    ids = tuple(sorted(row.id for row in data.rows))
    score = next((score for score in scores_of(task) if score.of_one_clip), headline(task))
    counted = {tuple(one.removed): count_outputs(one.outputs.outputs, ids, task, [score]) for one in systems}
    warn_of_empty_references(counted[()], ids)
    lost = {layers: _lost(score, counts) for layers, counts in counted.items()}
    full, counts, unit = lost[()]
    values = np.full((len(ids), len(losses.candidates)), np.nan)
    for index, layers in decoded.items():
        values[:, index] = lost[layers][0] - full
    return replace(
        losses,
        quantity="score",
        scope="response",
        utterances=ids,
        values=values,
        counts=counts,
        full=full,
        refused=refused,
        unit=unit,
        method="decoding",
    )


def _lost(score: Score, counts: UtteranceCounts) -> tuple[Floats, Ints, str]:
    """Losses (U,), what they are counted in (U,), and what their ratio is called; see `Score.losses`."""
    return score.losses(counts.statistics[score.name].astype(np.float64))
