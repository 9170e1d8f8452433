"""What plans are chosen by: a metric, measured on the validation split, as a function of the layers that go."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import FileFormatError
from shoal.measurement.blocks import block_layers
from shoal.plan_search.settings import SearchSettings
from shoal.pruning.in_memory import removal_problem
from shoal.schema import read_json, write_text
from shoal.schema.words import Candidate
from shoal.selection.path import Measure
from shoal.selection.values import IMPORTANCE
from shoal.statistics import Floats

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

PATH_FILE = "path.json"
PATH_VERSION = 1
"""Raised when the numbers in `path.json` change meaning, so that old files are measured again."""


def measure_of(
    loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings, out: Path | None
) -> StoredMeasure:
    """The metric of `settings`; nothing is measured before it is asked for a value that is not stored in `out`."""
    return StoredMeasure(
        lambda: _measured(loaded, data, task, settings),
        None if out is None else out / PATH_FILE,
        _key(loaded, data, task, settings),
    )


class StoredMeasure:
    """A measure that remembers, in memory and in a file.

    Args:
        make: makes the measure, the first time that a value is missing.
        path: where values are kept; None keeps them in memory.
        key: what they depend on; a file with another key is written anew.
    """

    def __init__(self, make: Callable[[], Measure], path: Path | None, key: str) -> None:
        self._make, self._path, self.key = make, path, key
        self._measure: Measure | None = None
        self._known = _stored(path, key)

    def __call__(self, candidates: Sequence[Candidate]) -> Floats:
        """Values (C,); NaN for a candidate that must not be chosen.

        Raises:
            MeasureError: the full model's own value is not finite.
            FileFormatError: the file cannot be written.
        """
        new = [each for each in dict.fromkeys(candidates) if each not in self._known]
        if new:
            self._measure = self._measure or self._make()
            self._known |= dict(zip(new, self._measure(new).tolist(), strict=True))
            self._store()
        return np.array([self._known[each] for each in candidates], dtype=np.float64)

    def _store(self) -> None:
        if self._path is None:
            return
        values = [
            [list(layers), value if math.isfinite(value) else None] for layers, value in self._known.items()
        ]
        write_text(self._path, json.dumps({"key": self.key, "values": values}) + "\n")


def _stored(path: Path | None, key: str) -> dict[Candidate, float]:
    """What a file with the same key holds; nothing if there is no such file."""
    if path is None:
        return {}
    try:
        content = read_json(path)
        if content["key"] != key:
            return {}
        return {
            tuple(layers): math.nan if value is None else float(value) for layers, value in content["values"]
        }
    except (FileFormatError, KeyError, TypeError, ValueError):
        return {}


def _measured(loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings) -> Measure:
    if settings.ranked_by == "ablation":
        from shoal.measurement.ablating import LossMeasure

        return LossMeasure(
            loaded,
            data,
            task,
            input=settings.input,
            scope=settings.counted,
            part=settings.part,
            batch_size=settings.batch_size,
        )
    if settings.ranked_by in IMPORTANCE:
        values = _gradients(loaded, data, task, settings)
    else:
        values = _distances(loaded, data, task, settings)
    return lambda candidates: np.array(
        [values.get(each, math.nan) if _can_go(loaded, each, settings) else math.nan for each in candidates]
    )


def _gradients(
    loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings
) -> dict[Candidate, float]:
    from shoal.decoder.batches import prepared_batches
    from shoal.measurement.gradient import gradients

    quantity = IMPORTANCE[settings.ranked_by][1]
    batches = prepared_batches(loaded, data, task, settings.input, settings.batch_size)
    for item in gradients(loaded, batches, scope=settings.counted, parts=settings.part != "layer"):
        if (item.quantity, item.part) == (quantity, settings.part):
            return dict(zip(item.candidates, item.means().tolist(), strict=True))
    return {}


def _distances(
    loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings
) -> dict[Candidate, float]:
    """Angular distance of every block, or its influence: the sum over its layers."""
    from shoal.measurement.audit import measure

    sums = measure(loaded, data, task, settings.input, batch_size=settings.batch_size)
    blocks = block_layers(sums.depth)
    means = sums.mean(settings.counted, settings.ranked_by)
    if settings.ranked_by == "angular":
        return dict(zip(blocks, means.tolist(), strict=True))
    return {block: float(means[list(block)].sum()) for block in blocks}


def _can_go(loaded: LoadedModel, layers: Candidate, settings: SearchSettings) -> bool:
    """Whether the model can go without them."""
    return removal_problem(loaded.model, layers, part=settings.part, family=loaded.family) is None


def _key(loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings) -> str:
    """What the values depend on, and nothing else (not the budget, not the strategy)."""
    parts: list[Any] = [
        PATH_VERSION,
        loaded.info().fingerprint,
        loaded.dtype_name,
        loaded.device.type,
        data.info().fingerprint,
        [task.target(row) for row in data.rows],
        task.name,
        task.asked,
        settings.ranked_by,
        settings.input,
        settings.counted,
        settings.part,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
