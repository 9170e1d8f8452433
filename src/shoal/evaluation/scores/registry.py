"""All scores by name, and those of a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shoal.errors import UsageError
from shoal.evaluation.scores.base import Score
from shoal.evaluation.scores.errors import Cer, CompoundWer, Wer
from shoal.evaluation.scores.labels import Accuracy, Judged, MacroF1, Uar
from shoal.evaluation.scores.losses import BitsPerByte, Loss, Perplexity, WordPerplexity
from shoal.evaluation.scores.questions import ExactMatch, TokenF1
from shoal.evaluation.scores.translation import Bleu, Chrf

if TYPE_CHECKING:
    from shoal.tasks import Task

JUDGED: tuple[Judged, ...] = ("written", "chosen", "chosen per byte")
_SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Wer(),
        Cer(),
        CompoundWer(),
        Bleu(),
        Chrf(),
        *(Accuracy(judged) for judged in JUDGED),
        *(Uar(judged=judged) for judged in JUDGED),
        *(MacroF1(judged=judged) for judged in JUDGED),
        ExactMatch(),
        TokenF1(),
        Loss(),
        Perplexity(),
        WordPerplexity(),
        BitsPerByte(),
    )
}


def scores_of(task: Task, labels: Iterable[str] | None = None) -> tuple[Score, ...]:
    """What `task` is scored by, the headline first.

    Args:
        task: names its scores.
        labels: all references, normalised, where the corpus is scored in parts; None takes those of each part.
    """
    suited = tuple(_SCORES[name].suited(task) for name in task.scored_by)
    return suited if labels is None else tuple(score.over(labels) for score in suited)


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
    return scores_of(task)[0]
