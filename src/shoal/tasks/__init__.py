"""What can be asked of a SpeechLLM: one file of code and one YAML a task, and this registry.

`get` takes the name of a task of Shoal's own, or the path of a YAML that names one as its `kind` and says what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shoal.errors import FileFormatError, UsageError
from shoal.schema.document import problem_of
from shoal.settings import use_one_of
from shoal.tasks.asr import Asr
from shoal.tasks.ast import Ast
from shoal.tasks.base import Task, Unit
from shoal.tasks.lm import Lm
from shoal.tasks.normalisers import Normaliser
from shoal.tasks.ser import Ser
from shoal.tasks.settings import TaskSettings, built_in, read_settings
from shoal.tasks.sqa import Sqa
from shoal.tasks.tts import Tts

__all__ = [
    "Normaliser",
    "Task",
    "TaskSettings",
    "Tts",
    "Unit",
    "get",
    "names",
    "restored",
    "settings_to_keep",
]

_KINDS: dict[str, type[Task]] = {
    "asr": Asr,
    "ast": Ast,
    "ser": Ser,
    "sqa": Sqa,
    "lm": Lm,
    "tts": Tts,
}
SUFFIXES = (".yaml", ".yml")


def get(name: str) -> Task:
    """The task of that name, or in that YAML file.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
        FileFormatError: the file is no task.
    """
    if name.lower().endswith(SUFFIXES):
        return _made(read_settings(Path(name).expanduser(), tuple(_KINDS)))
    if name not in _KINDS:
        raise UsageError(
            f"unknown task {name!r}",
            where="--task",
            fix=f"{use_one_of(name, names())}, or give a YAML file",
        )
    return _built_in(name)


def restored(name: str, settings: Mapping[str, Any] | None) -> Task:
    """The task of a document: from the settings that it keeps, or the built-in of that name.

    Raises:
        FileFormatError: the settings are not those of a task.
        UsageError: without settings, an unknown name.
    """
    if not settings:
        return get(name)
    try:
        kept = TaskSettings.model_validate(dict(settings))
    except ValidationError as error:
        raise FileFormatError(f"its task: {problem_of(error)}", where=name) from None
    if kept.kind not in _KINDS:
        raise FileFormatError(f"its task is of an unknown kind {kept.kind!r}", where=name)
    return _made(kept)


def settings_to_keep(task: Task) -> dict[str, Any]:
    """What a document must keep for `restored` to give the task again; nothing for one of Shoal's own as it is."""
    kind = task.settings.kind
    if task.settings == built_in(kind):
        return {}
    return task.settings.model_dump(mode="json")


def names() -> list[str]:
    """The names of all tasks of Shoal's own, sorted."""
    return sorted(_KINDS)


@cache
def _built_in(name: str) -> Task:
    return _made(built_in(name))


def _made(settings: TaskSettings) -> Task:
    return _KINDS[settings.kind](settings)
