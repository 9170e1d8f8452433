"""What the task loses without each candidate, clip by clip: sums, their file, and what they mean.

A *candidate* is a tuple of layers, ascending: `(l, …, l+n-1)` for a block. Every quantity is a sum over the tokens of a
clip, so that the importance of a candidate is the ratio of two sums over clips, as a corpus word error rate is, and its
interval comes from resampling clips or speakers. A value that is not finite is no value: its candidate is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from shoal.errors import MeasureError
from shoal.schema import Part, Scope
from shoal.statistics import Floats, Ints, Resampler
from shoal.terms import Candidate, scope_now

UNIT = "nats a token"


@dataclass(frozen=True)
class ImportanceSums:
    """One quantity of one metric over U utterances and C candidates.

    `values` is (U, C) float64: the sum over an utterance's tokens of what is lost without a candidate (for `loss` and
    `score` the difference from the full model); NaN where a candidate was not measured. `counts` is (U,): tokens, or
    reference words. `full` is (U,): the sum of the full model, or None where that is 0 by definition.
    """

    metric: str
    quantity: str
    scope: Scope
    part: Part
    candidates: tuple[Candidate, ...]
    utterances: tuple[str, ...]
    values: Floats
    counts: Ints
    full: Floats | None = None
    refused: Mapping[int, str] = field(default_factory=dict)
    unit: str = UNIT
    method: str = ""

    def means(self) -> Floats:
        """Importance of each candidate (C,); NaN for one that was refused or never measured."""
        known = ~np.isnan(self.values)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(known, self.values, 0).sum(0) / (known * self.counts[:, None]).sum(0)
        return self._without_refused(means[None])[0]

    def replicates(self, resampler: Resampler) -> Floats:
        """Bootstrap replicates of `means`: (R, C)."""
        known = ~np.isnan(self.values)
        sums = resampler.totals(np.where(known, self.values, 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._without_refused(sums / resampler.totals(known * self.counts[:, None]))

    def _without_refused(self, rows: Floats) -> Floats:
        rows[:, sorted(self.refused)] = np.nan
        return rows


def refuse_bad(sums: ImportanceSums) -> ImportanceSums:
    """The sums with every candidate refused that has a value that is infinite, or NaN where it was measured.

    An infinite value stands for "measured and not finite": whoever fills `values` writes infinity for NaN then.
    """
    bad = np.isinf(sums.values)
    refused = dict(sums.refused)
    for column in np.flatnonzero(bad.any(0)).tolist():
        clip = sums.utterances[int(np.flatnonzero(bad[:, column])[0])]
        refused.setdefault(column, f"clip {clip}: the {sums.quantity} without it is not finite")
    return replace(sums, refused=refused, values=np.where(bad, np.nan, sums.values))


def extended(items: Sequence[ImportanceSums], more: Sequence[ImportanceSums]) -> list[ImportanceSums]:
    """What was measured, with more candidates or more parts of it.

    Raises:
        MeasureError: other clips could be used than before.
    """
    merged = {(item.metric, item.quantity, item.scope, item.part): item for item in items}
    for item in more:
        known = (item.metric, item.quantity, item.scope, item.part)
        merged[known] = _joined(merged[known], item) if known in merged else item
    return list(merged.values())


def _joined(first: ImportanceSums, second: ImportanceSums) -> ImportanceSums:
    """The candidates of both in the order in which one measurement has them: by size, then by layer."""
    if first.utterances != second.utterances or not np.array_equal(first.counts, second.counts):
        raise MeasureError("other clips could be used than when it was measured before; measure anew with --force")
    candidates, refused = [*first.candidates, *second.candidates], dict(first.refused)
    refused |= {len(first.candidates) + column: reason for column, reason in second.refused.items()}
    order = sorted(range(len(candidates)), key=lambda index: (len(candidates[index]), candidates[index]))
    return replace(
        first,
        candidates=tuple(candidates[index] for index in order),
        values=np.concatenate([first.values, second.values], axis=1)[:, order],
        refused={order.index(column): reason for column, reason in refused.items()},
    )


def lengthened(items: Sequence[ImportanceSums], more: Sequence[ImportanceSums]) -> list[ImportanceSums]:
    """What was measured, with more clips: both have rows for all of them, without tokens for those they lack."""
    others = {(item.quantity, item.part): item for item in more}
    return [_with_clips(item, others[item.quantity, item.part]) for item in items]


def _with_clips(first: ImportanceSums, second: ImportanceSums) -> ImportanceSums:
    new = second.counts > 0
    return replace(
        first,
        values=np.where(new[:, None], second.values, first.values),
        counts=np.where(new, second.counts, first.counts),
        full=None if first.full is None or second.full is None else np.where(new, second.full, first.full),
        refused={**second.refused, **first.refused},
    )


ARRAYS = ("values", "counts", "utterances", "full")
"""What of the sums is an array; all else is described in the file's meta data."""


def to_arrays(items: Sequence[ImportanceSums], prefix: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What goes into the audit's `.npz`: descriptions for its meta data, and arrays under `prefix`."""
    described: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, item in enumerate(items):
        about = {known.name: getattr(item, known.name) for known in fields(item) if known.name not in ARRAYS}
        described.append(about | {"full": item.full is not None})
        for name in ARRAYS:
            if (values := getattr(item, name)) is not None:
                arrays[f"{prefix}_importance{number}_{name}"] = np.asarray(values)
    return described, arrays


def from_arrays(described: Sequence[Mapping[str, Any]], data: Any, prefix: str) -> list[ImportanceSums]:
    """The inverse of `to_arrays`; JSON has made lists of tuples, and text of the numbers of refused candidates."""
    items = []
    for number, about in enumerate(described):
        arrays = {name: data[f"{prefix}_importance{number}_{name}"] for name in ARRAYS if about.get(name, True)}
        known = {**about, "full": None, **arrays}
        known["utterances"] = tuple(str(name) for name in arrays["utterances"])
        known["candidates"] = tuple(tuple(layers) for layers in about["candidates"])
        known["scope"] = scope_now(about["scope"])
        known["refused"] = {int(column): reason for column, reason in about["refused"].items()}
        items.append(ImportanceSums(**known))
    return items
