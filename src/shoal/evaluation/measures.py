"""What a task is scored by, by name, and how outputs become what scores compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from shoal.errors import UsageError
from shoal.evaluation.scores.base import Answers, Score
from shoal.evaluation.scores.errors import Cer, CompoundWer, ErrorRate, Wer
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
    "CompoundWer",
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
    "scores",
]

_SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Wer(),
        Cer(),
        CompoundWer(),
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
