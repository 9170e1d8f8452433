"""What a task is, as its YAML says it: data, kept apart from how it is done, which is code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from shoal.errors import FileFormatError
from shoal.schema import InputKind, Record
from shoal.schema.document import problem_of
from shoal.schema.files import read_yaml
from shoal.settings import use_one_of

Answering = Literal["decode", "choose", "loss"]
"""The model writes freely; the likeliest of the allowed answers is taken; the loss of the right answer is taken."""
NormaliserName = Literal["whisper", "none", "label", "squad"]

_CHOSEN = ("accuracy", "UAR", "macro-F1")
NEEDS: Mapping[str, Answering] = {
    **dict.fromkeys(("WER", "CER", "compound WER", "BLEU", "chrF", *_CHOSEN, "exact match", "token F1"), "decode"),
    **{f"{name}, {how}": "choose" for name in _CHOSEN for how in ("chosen", "chosen per byte")},
    **dict.fromkeys(("perplexity", "word perplexity", "bits per byte", "loss"), "loss"),
}
"""Every score by name (the classes are in `shoal.evaluation.scores`), and how the model must be asked for it."""


class TaskSettings(Record):
    """One task; `docs/tasks.md` explains every key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: str
    """The built-in task whose code is used."""
    title: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    """What the model is asked; `{language}` stands for the target language in English."""
    fields: dict[str, str] = Field(default_factory=dict)
    """What a row must hold → the key of the manifest that holds it."""
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    """All answers, as the model should write them; None takes those of the data."""
    target_lang: str | None = Field(default=None, min_length=2)
    """The language of the answers, where it is not the one that is spoken."""
    normaliser: NormaliserName
    inputs: tuple[InputKind, ...] = Field(min_length=1)
    answered_by: tuple[Answering, ...] = Field(min_length=1)
    scored_by: tuple[str, ...] = Field(min_length=1)
    """Names of scores, the headline first."""

    @field_validator("instruction", "title")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if text != " ".join(text.split()):
            raise ValueError("it must be one line without spaces at its ends")
        return text

    @field_validator("labels")
    @classmethod
    def _different(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        bare = [" ".join(label.lower().split()) for label in labels or ()]
        if len(set(bare)) < len(bare) or "" in bare:
            raise ValueError("labels must differ and say something")
        return labels

    @model_validator(mode="after")
    def _scores_fit(self) -> Self:
        for name in self.scored_by:
            if name not in NEEDS:
                raise ValueError(f"no score {name!r}; there are {', '.join(NEEDS)}")
            if NEEDS[name] not in self.answered_by:
                raise ValueError(f"the score {name!r} needs {NEEDS[name]!r} in answered_by")
        return self


@cache
def built_in(kind: str) -> TaskSettings:
    """The settings of a task of Shoal's own."""
    text = (files("shoal.tasks") / f"{kind}.yaml").read_text(encoding="utf-8")
    return TaskSettings.model_validate({"name": kind, "kind": kind, **yaml.safe_load(text)})


def read_settings(path: str | os.PathLike[str], kinds: tuple[str, ...]) -> TaskSettings:
    """A user's task: a built-in kind, and what differs from it.

    Raises:
        FileFormatError: no file, no YAML, no kind, an unknown key or a value that makes no sense.
    """
    settings = read_yaml(path, what="a task", fix="write kind: ser, instruction: …")
    kind = settings.get("kind")
    if kind not in kinds:
        if kind is None:
            raise FileFormatError("no kind", where=str(path), fix=f"write kind: with one of {', '.join(kinds)}")
        raise FileFormatError(f"unknown kind {kind!r}", where=str(path), fix=use_one_of(kind, kinds))
    return _merged(built_in(str(kind)), settings, Path(path))


def _merged(base: TaskSettings, changes: dict[str, Any], path: Path) -> TaskSettings:
    fields = changes.get("fields") or {}
    if isinstance(fields, dict) and (strange := sorted(map(str, set(fields) - set(base.fields)))):
        raise FileFormatError(
            f"fields: {base.kind} reads no {strange[0]!r}",
            where=str(path),
            fix=f"name {', '.join(base.fields)}",
        )
    whole = base.model_dump() | {"name": path.stem} | changes
    if isinstance(fields, dict):
        whole["fields"] = base.fields | fields
    try:
        return TaskSettings.model_validate(whole)
    except ValidationError as error:
        raise FileFormatError(problem_of(error, TaskSettings), where=str(path), fix="see docs/tasks.md") from None
