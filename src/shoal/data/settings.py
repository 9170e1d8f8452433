"""Which rows of the manifests are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, field_validator

from shoal.settings import DATA, Settings


def _pairs(value: object) -> object:
    """`["split=test"]` → `{"split": "test"}`."""
    if value is None:
        return {}
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    fields: dict[str, str] = {}
    for text in texts:
        field, equals, required = str(text).partition("=")
        if not equals or not field or field in fields:
            raise ValueError(f"{text!r} is not FIELD=VALUE, or the field stands twice; write --where split=test")
        fields[field] = required
    return fields


Fields = Annotated[
    Mapping[str, str],
    BeforeValidator(_pairs),
    Parameter(accepts_keys=False, allow_repeating=True, n_tokens=1, metavar="FIELD=VALUE"),
]
"""`split=test`, repeatable."""


class DataSettings(Settings):
    """Which rows of the manifests are used."""

    where: Annotated[Fields, DATA] = Field(default={})
    """Keep only rows whose field has this value. Repeatable."""
    limit: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Number of clips to use, evenly spaced within each data set and, where the task has labels, each label; default:
    all. A clip whose audio turns out bad is left out and not replaced."""
    lang: Annotated[str | None, DATA] = None
    """Language of rows that name none (en, de …); it picks the normaliser, and models that take a language are told."""
    max_bad: Annotated[float, DATA] = Field(default=0.01, ge=0)
    """Bad rows to tolerate: a share below 1, or a number of rows."""
    max_clip_seconds: Annotated[float, DATA] = Field(default=120.0, gt=0)
    """Longest clip to accept, in seconds; longer ones are bad rows."""
    seed: Annotated[int, Parameter(parse=False)] = 0
    """Where the even spacing of `limit` starts; 0 is the first row."""
    limit_option: Annotated[str, Parameter(parse=False)] = "--limit"
    """The option that the limit came from, for warnings."""

    @field_validator("max_bad")
    @classmethod
    def _share_or_count(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"{value:g} is neither a share below 1 nor a number of rows; give 0.01 or 3")
        return value
