"""All scores by name, and those of a task.

A score is found by its file: every module of this folder has its scores in `SCORES`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from shoal.errors import UsageError
from shoal.evaluation import scores as package
from shoal.evaluation.scores.base import Score

if TYPE_CHECKING:
    from shoal.tasks import Task


def _all_scores() -> dict[str, Score]:
    modules = (import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__))
    return {score.name: score for module in modules for score in getattr(module, "SCORES", ())}


BY_NAME = _all_scores()
"""Every score, as tasks without settings of their own have it."""


def scores_of(task: Task, labels: Iterable[str] | None = None) -> tuple[Score, ...]:
    """What `task` is scored by, the headline first.

    Args:
        task: names its scores.
        labels: all references, normalised, where the corpus is scored in parts; None takes those of each part.
    """
    suited = tuple(BY_NAME[name].suited(task) for name in task.scored_by)
    return suited if labels is None else tuple(score.over(labels) for score in suited)


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
