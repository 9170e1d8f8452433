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
from shoal.measurement.metric_types import ImportanceMetric, ImportanceOptions, ImportanceRequest, Quantity
from shoal.measurement.metrics import options, sign_of
from shoal.plan_search.paths import Measure
from shoal.plan_search.settings import SearchSettings
from shoal.pruning.in_memory import removal_problem
from shoal.schema import read_json, write_text
from shoal.statistics import Floats
from shoal.terms import Candidate

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part
    from shoal.tasks import Task

PATH_FILE = "path.json"
PATH_VERSION = 2
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
        new = [layers for layers in dict.fromkeys(candidates) if layers not in self._known]
        if new:
            self._measure = self._measure or self._make()
            self._known |= dict(zip(new, self._measure(new).tolist(), strict=True))
            self._store()
        return np.array([self._known[layers] for layers in candidates], dtype=np.float64)

    def _store(self) -> None:
        if self._path is None:
            return
        values = [[list(layers), value if math.isfinite(value) else None] for layers, value in self._known.items()]
        write_text(self._path, json.dumps({"key": self.key, "values": values}) + "\n")


def _stored(path: Path | None, key: str) -> dict[Candidate, float]:
    """What a file with the same key holds; nothing if there is no such file."""
    if path is None:
        return {}
    try:
        content = read_json(path)
        if content["key"] != key:
            return {}
        return {tuple(layers): math.nan if value is None else float(value) for layers, value in content["values"]}
    except (FileFormatError, KeyError, TypeError, ValueError):
        return {}


def _measured(loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings) -> Measure:
    """The lower, the sooner it goes, whichever way the metric counts."""
    metric, quantity = options()[settings.ranked_by]
    sign = sign_of(settings.ranked_by)
    if isinstance(metric, ImportanceMetric) and quantity is not None:
        request = _request(loaded, data, task, settings)
        if metric.of_any_layers is not None:
            measure = metric.of_any_layers(request, settings.part)
            return lambda candidates: sign * measure(candidates)
        values, adds_up = _importance(metric, quantity, request, settings.part), metric.additive
    else:
        values, adds_up = _cosines(loaded, data, task, settings), True

    def value(layers: Candidate) -> float:
        if not _can_go(loaded, layers, settings):
            return math.nan
        if adds_up and layers not in values:
            return sum(values.get((layer,), math.nan) for layer in layers)
        return values.get(layers, math.nan)

    return lambda candidates: sign * np.array([value(layers) for layers in candidates])


def _request(loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings) -> ImportanceRequest:
    measured = ImportanceOptions(
        block_sizes=None if settings.strategy == "contiguous" else (1,),
        parts=(settings.part,),
        scope=settings.counted,
        batch_size=settings.batch_size,
    )
    return ImportanceRequest(loaded, data, task, settings.input, measured)


def _importance(
    metric: ImportanceMetric, quantity: Quantity, request: ImportanceRequest, part: Part
) -> dict[Candidate, float]:
    for item in metric.measure(request):
        if (item.quantity, item.part) == (quantity.name, part):
            return dict(zip(item.candidates, item.means().tolist(), strict=True))
    return {}


def _cosines(loaded: LoadedModel, data: Dataset, task: Task, settings: SearchSettings) -> dict[Candidate, float]:
    """Of every block; of a metric of layers those of one layer."""
    from shoal.measurement.audit import measure

    sums = measure(loaded, data, task, settings.input, batch_size=settings.batch_size)
    means = sums.mean(settings.counted, settings.ranked_by)
    return dict(zip(block_layers(sums.depth), means.tolist(), strict=False))


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
        *loaded.languages_told(task, [row.lang for row in data.rows]),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
