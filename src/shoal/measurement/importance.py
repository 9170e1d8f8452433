"""What the task loses without each candidate, clip by clip: sums, their file, and what they mean.

A *candidate* is a tuple of layers, ascending: `(l, …, l+n-1)` for a block. Every quantity is a sum over the tokens of a
clip, so that the importance of a candidate is the ratio of two sums over clips, as a corpus word error rate is, and its
interval comes from resampling clips or speakers. A value that is not finite is no value: its candidate is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.schema import Estimate, Importance, Part, Quantity, Scope
from shoal.schema.words import Candidate
from shoal.statistics import Resampler, estimate_rows, interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImportanceSums:
    """One quantity of one metric over U utterances and C candidates.

    `values` is (U, C) float64: the sum over an utterance's tokens of what is lost without a candidate (for `loss` and
    `score` the difference from the full model); NaN where a candidate was not measured. `counts` is (U,): tokens, or
    reference words. `full` is (U,): the sum of the full model, or None where that is 0 by definition.
    """

    metric: str
    quantity: Quantity
    scope: Scope
    part: Part
    candidates: tuple[Candidate, ...]
    utterances: tuple[str, ...]
    values: Floats
    counts: Ints
    full: Floats | None = None
    refused: Mapping[int, str] = field(default_factory=dict)
    unit: str = "nats a token"
    method: str = ""

    def means(self) -> Floats:
        """Importance of each candidate (C,); NaN for one that was refused or never measured."""
        known = ~np.isnan(self.values)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(known, self.values, 0).sum(0) / (known * self.counts[:, None]).sum(0)
        return self._without_refused(found[None])[0]

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
    for place in np.flatnonzero(bad.any(0)).tolist():
        clip = sums.utterances[int(np.flatnonzero(bad[:, place])[0])]
        refused.setdefault(place, f"clip {clip}: the {sums.quantity} without it is not finite")
    return replace(sums, refused=refused, values=np.where(bad, np.nan, sums.values))


def summarise_importance(sums: ImportanceSums, resampler: Resampler, level: float) -> Importance:
    """The record of an audit: means with intervals."""
    means = sums.means()
    low = high = None
    if resampler.clusters > 1 and np.isfinite(means).any():
        drawn = sums.replicates(resampler)
        usable = np.isfinite(means)
        low, high = np.full_like(means, np.nan), np.full_like(means, np.nan)
        low[usable], high[usable] = interval(drawn[:, usable], level)
    return Importance(
        metric=sums.metric,  # type: ignore[arg-type]
        quantity=sums.quantity,
        unit=sums.unit,
        scope=sums.scope,
        part=sums.part,
        candidates=[list(candidate) for candidate in sums.candidates],
        values=_known(means),
        low=None if low is None else _known(low),
        high=None if high is None else _known(high),
        clips=(~np.isnan(sums.values)).sum(0).tolist(),
        refused=dict(sums.refused),
        utterances=len(sums.utterances),
        positions=int(sums.counts.sum()),
        full=_full(sums, resampler, level),
        method=sums.method,
    )


def _full(sums: ImportanceSums, resampler: Resampler, level: float) -> Estimate | None:
    if sums.full is None:
        return None
    rows = np.array([sums.full.sum() / sums.counts.sum()])
    if resampler.clusters > 1:
        rows = np.concatenate([rows, resampler.means(sums.full[:, None], sums.counts)[:, 0]])
    return estimate_rows(rows, level)


def _known(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def to_arrays(items: Sequence[ImportanceSums], prefix: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What goes into the audit's `.npz`: descriptions for its meta data, and arrays under `prefix`."""
    described: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, item in enumerate(items):
        name = f"{prefix}_importance{number}"
        described.append(
            {
                "metric": item.metric,
                "quantity": item.quantity,
                "scope": item.scope,
                "part": item.part,
                "candidates": [list(candidate) for candidate in item.candidates],
                "refused": {str(place): reason for place, reason in item.refused.items()},
                "unit": item.unit,
                "method": item.method,
                "full": item.full is not None,
            }
        )
        arrays[f"{name}_values"], arrays[f"{name}_counts"] = item.values, item.counts
        arrays[f"{name}_utterances"] = np.array(item.utterances, dtype=np.str_)
        if item.full is not None:
            arrays[f"{name}_full"] = item.full
    return described, arrays


def from_arrays(described: Sequence[Mapping[str, Any]], data: Any, prefix: str) -> list[ImportanceSums]:
    """The inverse of `to_arrays`."""
    found = []
    for number, about in enumerate(described):
        name = f"{prefix}_importance{number}"
        found.append(
            ImportanceSums(
                metric=about["metric"],
                quantity=about["quantity"],
                scope=about["scope"],
                part=about["part"],
                candidates=tuple(tuple(layers) for layers in about["candidates"]),
                utterances=tuple(str(utterance) for utterance in data[f"{name}_utterances"]),
                values=data[f"{name}_values"],
                counts=data[f"{name}_counts"],
                full=data[f"{name}_full"] if about["full"] else None,
                refused={int(place): reason for place, reason in about["refused"].items()},
                unit=about["unit"],
                method=about["method"],
            )
        )
    return found
