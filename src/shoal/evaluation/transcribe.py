"""All clips through all systems.

The encoder is the same for every plan, so a window of clips is embedded once and then answered by one system after
the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.evaluation.answering import answers
from shoal.evaluation.auto_batch_size import slots_that_fit
from shoal.evaluation.engine import EngineCache
from shoal.evaluation.window import windows
from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.evaluation.engine import BatchSize
    from shoal.evaluation.settings import TokenLimit
    from shoal.evaluation.systems import System
    from shoal.evaluation.window import Window
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

Lacking = npt.NDArray[np.bool_]
"""(N, S): whether system s has no output for row n yet. All that is kept of the rows."""


class Transcriber:
    """Decodes what the systems have no output for yet.

    Args:
        data: the clips.
        task: what is asked.
        limit: how many tokens a clip may get.
        batch_size: clips that are decoded at once, at most; `auto` is as many as memory allows.

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """

    def __init__(self, data: Dataset, task: Task, limit: TokenLimit, batch_size: BatchSize) -> None:
        self._data, self._task, self._limit, self._batch_size = data, task, limit, batch_size
        # A manifest is large: rows are read only for what was not checked while it was read first.
        if not (task.asks_for_the_text and data.texts_checked):
            for row in data.rows:
                task.target(row)

    def run(self, systems: Sequence[System], progress: Progress | None = None) -> None:
        """Transcribe, window after window; outputs are stored as they come.

        Args:
            systems: with the outputs that they have already.
            progress: called with ("transcribe", clips × systems done, in all).
        """
        rows = self._data.rows
        lacking = self._lacking(systems, rows)
        tally = _Tally(progress, lacking.size - int(lacking.sum()), lacking.size)
        for model in {id(system.loaded): None for system in systems}:
            places = [place for place, system in enumerate(systems) if id(system.loaded) == model]
            self._run_model([systems[place] for place in places], rows, lacking[:, places], tally)

    def _lacking(self, systems: Sequence[System], rows: Sequence[Row]) -> Lacking:
        lacking = np.ones((len(rows), len(systems)), dtype=np.bool_)
        for place, row_id in enumerate(self._data.ids()):
            if any(system.outputs.knows(row_id) for system in systems):
                row = rows[place]
                reference = self._task.target(row)
                lacking[place] = [not system.outputs.has(row, reference) for system in systems]
        return lacking

    def _run_model(
        self,
        systems: Sequence[System],
        rows: Sequence[Row],
        lacking: Lacking,
        tally: _Tally,
    ) -> None:
        """All systems of one model, which share its encoder."""
        places = np.flatnonzero(lacking.any(axis=1))
        if not len(places):
            return
        loaded, start = systems[0].loaded, 0
        slots = self._slots(loaded, rows)
        engines = EngineCache(slots)
        for window in windows(loaded, self._data, rows, places, self._task, slots=slots):
            here = places[start : start + len(window.rows)]
            start += len(here)
            for same in _equal(systems):
                needed = lacking[here][:, same]
                self._run_window([systems[place] for place in same], window, needed, engines, tally)

    def _slots(self, loaded: LoadedModel, rows: Sequence[Row]) -> int:
        """Clips that are decoded at once, at most."""
        if self._batch_size != "auto":
            return self._batch_size
        longest = rows[int(np.argmax(self._data.seconds()))]
        return slots_that_fit(loaded, self._data, longest, self._task, self._limit)

    def _run_window(
        self, systems: Sequence[System], window: Window, lacking: Lacking, engines: EngineCache, tally: _Tally
    ) -> None:
        """Equal systems, decoded once."""
        wanted = {row.id for row, lacks in zip(window.rows, lacking, strict=True) if lacks.any()}
        left = int(lacking.sum())
        found = answers(
            systems[0],
            window,
            wanted,
            self._task,
            self._limit,
            engines=engines,
            group=engines.slots,
        )
        files = {id(system.outputs): system.outputs for system in systems}  # on the disk they share one
        for outputs in found:
            for file in files.values():
                file.append(outputs)
            left -= tally.add(min(left, len(outputs) * len(systems)))
        tally.add(left)  # rows whose audio cannot be used


@dataclass(slots=True)
class _Tally:
    """How far it is."""

    progress: Progress | None
    done: int
    total: int

    def add(self, count: int) -> int:
        """`count` more outputs are there; returns `count`."""
        self.done += count
        if self.progress is not None and count:
            self.progress("transcribe", self.done, self.total)
        return count


def _equal(systems: Sequence[System]) -> Iterator[list[int]]:
    """Places of systems of one model that go without the same."""
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for place, system in enumerate(systems):
        groups.setdefault((system.part, tuple(system.removed)), []).append(place)
    yield from groups.values()
