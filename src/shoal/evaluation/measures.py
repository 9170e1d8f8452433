"""What a task is scored by, by name, and how outputs become what scores compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shoal.errors import UsageError
from shoal.evaluation.scores.base import Answers, Score
from shoal.evaluation.scores.errors import Cer, ErrorRate, Wer
from shoal.evaluation.scores.labels import (
    Accuracy,
    AccuracyPerByte,
    ChosenAccuracy,
    ChosenMacroF1,
    ChosenUar,
    MacroF1,
    MacroF1PerByte,
    OverLabels,
    Uar,
    UarPerByte,
)
from shoal.evaluation.scores.losses import BitsPerByte, Loss, LossScore, Perplexity, WordPerplexity
from shoal.evaluation.scores.questions import BestOfAccepted, ExactMatch, TokenF1
from shoal.evaluation.scores.translation import Bleu, Chrf, SacreBleu
from shoal.statistics import Floats, Resampler

if TYPE_CHECKING:
    from shoal.evaluation.output_file import Output
    from shoal.tasks import Task

__all__ = [
    "Accuracy",
    "Answers",
    "BestOfAccepted",
    "BitsPerByte",
    "Bleu",
    "Cer",
    "ChosenAccuracy",
    "ChosenMacroF1",
    "ChosenUar",
    "Chrf",
    "ErrorRate",
    "ExactMatch",
    "Loss",
    "LossScore",
    "MacroF1",
    "OverLabels",
    "Perplexity",
    "SacreBleu",
    "Score",
    "TokenF1",
    "Uar",
    "Wer",
    "WordPerplexity",
    "answers",
    "by_name",
    "headline",
    "paired_change",
    "scores",
]

_SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Wer(),
        Cer(),
        Bleu(),
        Chrf(),
        Accuracy(),
        Uar(),
        MacroF1(),
        ChosenAccuracy(),
        ChosenUar(),
        ChosenMacroF1(),
        AccuracyPerByte(),
        UarPerByte(),
        MacroF1PerByte(),
        ExactMatch(),
        TokenF1(),
        Loss(),
        Perplexity(),
        WordPerplexity(),
        BitsPerByte(),
    )
}


def scores(task: Task, labels: Iterable[str] | None = None) -> tuple[Score, ...]:
    """What `task` is scored by, the headline first.

    Args:
        task: names its scores.
        labels: all references, normalised, where the corpus is scored in parts; None takes those of each part.
    """
    found = (_SCORES[name].suited(task) for name in task.scored_by)
    return tuple(found) if labels is None else tuple(score.over(labels) for score in found)


def by_name(name: str) -> Score:
    """The score of that name, as tasks without settings of their own have it."""
    return _SCORES[name]


def headline(task: Task) -> Score:
    """The one score of `task` that stands for it.

    Raises:
        UsageError: the task has no score.
    """
    if not task.scored_by:
        raise UsageError(
            f"the task {task.name} has nothing to be scored by",
            where="--task",
            fix=f"measure it with `shoal audit --metric ablation --task {task.name}`",
        )
    return scores(task)[0]


def answers(task: Task, outputs: Sequence[Output]) -> Answers:
    """Outputs as the scores of `task` compare them: normalised, and chosen from what was scored."""
    normalisers = [task.normaliser(output.lang) for output in outputs]
    pairs = list(zip(normalisers, outputs, strict=True))
    return Answers(
        references=[normalise(output.text) for normalise, output in pairs],
        hypotheses=[normalise(output.pred_text) for normalise, output in pairs],
        units=[task.unit(output.lang) for output in outputs],
        accepted=[
            [normalise(right) for right in task.accepted(output.text, output.fields)]
            for normalise, output in pairs
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


def paired_change(score: Score, system: Floats, full: Floats, resampler: Resampler) -> tuple[float, Floats]:
    """How much worse a system is than the full model, relative to it, on the same utterances.

    Args:
        score: whose statistics these are.
        system: statistics (U, S) of the system.
        full: statistics (U, S) of the full model.
        resampler: one draw for both.

    Returns:
        The relative change of the corpus score, 0.1 for 10 % worse whichever way the score runs, and its replicates
        (R,); infinite or NaN where the full model's score is 0 or undefined.
    """
    sums = np.stack([system.sum(axis=0), full.sum(axis=0)])
    value = _worsening(score, *score.value(sums)[:, None])
    replicates = _worsening(score, *(score.value(resampler.totals(each)) for each in (system, full)))
    return float(value[0]), replicates


def _worsening(score: Score, system: Floats, full: Floats) -> Floats:
    worse = full - system if score.higher_is_better else system - full
    with np.errstate(invalid="ignore", divide="ignore"):
        change: Floats = worse / full
    return change
