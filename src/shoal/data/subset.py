"""Choosing rows: by the value of a field, or an evenly spaced few."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from shoal.errors import UsageError

T = TypeVar("T")
_MAX_LISTED = 12


def matches(fields: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Whether the fields have all the values of `where`, compared as text."""
    return all(key in fields and as_text(fields[key]) == value for key, value in where.items())


def no_match(fields: Sequence[Mapping[str, Any]], where: Mapping[str, str]) -> UsageError:
    """Says that no row has the values of `where`, and which values there are."""
    condition = " and ".join(f"{key}={value}" for key, value in where.items())
    available = "; ".join(_available(fields, key) for key in where)
    return UsageError(f"none of {len(fields)} rows has {condition} ({available})", fix="change --where")


def evenly_spaced(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` rows at even distances, in their order; all of them if there are no more.

    Row `floor((i + phase) · len / limit)` for i = 0 … limit-1. The phase is 0 for seed 0, so that the first
    row is always among them, and drawn from [0, 1) for any other seed.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    phase = random.Random(seed).random() if seed else 0.0
    return [rows[int((index + phase) * len(rows) / limit)] for index in range(limit)]


def as_text(value: Any) -> str:
    """A field's value as `where` compares it: JSON's words for true, false and null, else Python's `str`."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _available(fields: Sequence[Mapping[str, Any]], key: str) -> str:
    values = Counter(as_text(row[key]) for row in fields if key in row)
    if not values:
        names = sorted({name for row in fields for name in row})
        return f"there is no field {key!r}, only {', '.join(names[:_MAX_LISTED])}"
    listed = ", ".join(f"{value} ({count})" for value, count in values.most_common(_MAX_LISTED))
    return f"values of {key}: {listed}{', …' if len(values) > _MAX_LISTED else ''}"
