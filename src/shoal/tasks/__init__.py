"""What can be asked of a SpeechLLM: one file per task, and this registry."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.tasks.asr import Asr
from shoal.tasks.ast import Ast
from shoal.tasks.base import Normaliser, Task, Unit
from shoal.tasks.lm import Lm
from shoal.tasks.ser import Ser

__all__ = ["Normaliser", "Task", "Unit", "get", "names"]

_TASKS: dict[str, Task] = {task.name: task for task in (Asr(), Ast(), Ser(), Lm())}


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in _TASKS:
        raise UsageError(f"unknown task {name!r}", where="--task", fix=f"choose one of {', '.join(names())}")
    return _TASKS[name]


def names() -> list[str]:
    """All task names, sorted."""
    return sorted(_TASKS)
