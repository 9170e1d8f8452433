"""Choosing rows: by the value of a field, or a few of all, evenly spaced."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from shoal.errors import UsageError
from shoal.settings import did_you_mean

T = TypeVar("T")
_MAX_LISTED = 12


def matches(fields: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Whether the fields have all the values of `where`, compared as text."""
    return all(key in fields and as_text(fields[key]) == value for key, value in where.items())


def no_match(fields: Sequence[Mapping[str, Any]], where: Mapping[str, str]) -> UsageError:
    """Says that no row has the values of `where`, and which values there are."""
    condition = " and ".join(f"{key}={value}" for key, value in where.items())
    available = "; ".join(_available(fields, key) for key in where)
    nearest = "".join(_nearest(fields, key, value) for key, value in where.items())
    return UsageError(f"none of {len(fields)} rows has {condition} ({available})", fix=f"{nearest}change --where")


def evenly_spaced(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` rows at even distances, in their order; all of them if there are no more.

    Row `floor((i + phase) · len / limit)` for i = 0 … limit-1. The phase is 0 for seed 0, so that the first
    row is always among them, and drawn from [0, 1) for any other seed.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    phase = random.Random(seed).random() if seed else 0.0
    return [rows[int((index + phase) * len(rows) / limit)] for index in range(limit)]


def spread(
    positions: Sequence[int], limit: int | None, seed: int, groups: Sequence[Callable[[int], Hashable]], turn: int = 0
) -> list[int]:
    """`limit` of ascending positions, each group with its share of them, evenly spaced within a group.

    Args:
        positions: to choose from.
        limit: how many; None is all.
        seed: see `evenly_spaced`.
        groups: the group of a position; then, within each of these groups, the next kind of group …
        turn: of several such choices this is number 0, 1 …: where not all groups can have one, it begins at another.
    """
    if limit is None or limit >= len(positions) or not groups:
        return evenly_spaced(positions, limit, seed)
    members: dict[Hashable, list[int]] = {}
    for position in positions:
        members.setdefault(groups[0](position), []).append(position)
    sizes = [len(group) for group in members.values()]
    if limit < len(sizes):
        chosen = {(number + turn) % len(sizes) for number in evenly_spaced(range(len(sizes)), limit, seed)}
        shares = [int(number in chosen) for number in range(len(sizes))]
    else:
        shares = _shares(sizes, limit)
    parts = enumerate(zip(members.values(), shares, strict=True))
    return sorted(
        position
        for number, (group, share) in parts
        if share
        for position in spread(group, share, seed, groups[1:], number)
    )


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """`limit`, which is less than all and at least one each, shared out by size; nobody goes empty."""
    due = [limit * size / sum(sizes) for size in sizes]
    shares = [max(1, int(share)) for share in due]
    while sum(shares) != limit:
        step = 1 if sum(shares) < limit else -1
        movable = [number for number, share in enumerate(shares) if 1 <= share + step <= sizes[number]]
        shares[max(movable, key=lambda number: step * (due[number] - shares[number]))] += step
    return shares


def as_text(value: Any) -> str:
    """A field's value as `where` compares it: JSON's words for true, false and null, else Python's `str`."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _nearest(fields: Sequence[Mapping[str, Any]], key: str, value: str) -> str:
    values = {as_text(row[key]) for row in fields if key in row}
    if not values:
        return did_you_mean(key, {name for row in fields for name in row})
    return "" if value in values else did_you_mean(value, values)


def _available(fields: Sequence[Mapping[str, Any]], key: str) -> str:
    values = Counter(as_text(row[key]) for row in fields if key in row)
    if not values:
        names = sorted({name for row in fields for name in row})
        return f"there is no field {key!r}, only {', '.join(names[:_MAX_LISTED])}"
    listed = ", ".join(f"{value} ({count})" for value, count in values.most_common(_MAX_LISTED))
    return f"values of {key}: {listed}{', …' if len(values) > _MAX_LISTED else ''}"
