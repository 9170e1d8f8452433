"""All clips through all systems.

The encoder is the same for every plan, so a window of clips is embedded once and then answered by one system after
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shoal import tasks
from shoal.decoder.stock_inputs import first_ids
from shoal.evaluation.controls import ControlClips
from shoal.evaluation.decode_window import decode_window
from shoal.evaluation.engine import EngineCache, fitting_slots, prompts_of, supported
from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.locks import Locks
from shoal.evaluation.model_checks import check_can_answer
from shoal.evaluation.scores.registry import headline
from shoal.evaluation.settings import DecodingSettings, TokenLimit, limit_of
from shoal.evaluation.shards import Shard, open_shard, open_whole
from shoal.evaluation.systems import System, open_systems
from shoal.evaluation.window import WINDOW_BATCHES, embed, read_clips, windows
from shoal.machine import free_memory
from shoal.progress import Progress, report_progress

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.evaluation.engine import BatchSize
    from shoal.evaluation.window import Window
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task

Lacking = npt.NDArray[np.bool_]
"""(N, S): whether system s has no output for row n yet. All that is kept of the rows."""
USUAL_BATCH_SIZE = 16
"""Where the memory that a clip takes is not known: models that only their own `generate` decodes."""


def decode_systems(
    loaded: LoadedModel,
    data: Dataset,
    task: Task,
    decoding: DecodingSettings,
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    beside: Sequence[LoadedModel] = (),
    out: Path | None = None,
    shard: Shard | None = None,
    control: ControlClips | None = None,
    progress: Progress | None = None,
) -> list[System]:
    """The systems, the baseline first, with an output for every clip (of a shard) that can be used.

    Args:
        loaded: the model that plans prune.
        data: all clips, which decide the header of the outputs.
        task: what is asked of these clips, see `asked_of`.
        decoding: batch size and token limit.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        beside: more checkpoints.
        out: folder for `outputs/`; what is there is not decoded again. None keeps outputs in memory.
        shard: the clips to decode; None decodes all.
        control: the same clips with audio that is not theirs, to be decoded instead.
        progress: called with ("transcribe", clips × systems done, in all).
    """
    settings = header(loaded, data, task, decoding.limit)
    if control is not None:
        settings, data = settings | {"control": control.name}, control.data
    part = data if shard is None else shard.rows_of(data)
    with Locks() as locks:
        opened = partial(open_whole, locks=locks)
        if shard is not None:
            opened = partial(open_shard, shard=shard, locks=locks)
        systems = open_systems(loaded, plans, against=against, beside=beside, out=out, header=settings, opened=opened)
        SystemsDecoder(part, task, decoding.limit, decoding.batch_size).run(systems, progress)
    return systems


def asked_of(data: Dataset, task: Task | str, *models: LoadedModel | None) -> Task:
    """The task as these clips ask it, once the models are known to be able to answer it."""
    task = (tasks.get(task) if isinstance(task, str) else task).on(data.rows)
    headline(task)
    for model in models:
        if model is not None:
            check_can_answer(model, task)
            if task.input == "speech":
                model.check_clips(data, task)
            task = without_unmeasurable_loss(task, model, data.rows)
    return task


def header(loaded: LoadedModel, data: Dataset, task: Task, limit: TokenLimit) -> dict[str, Any]:
    """What decides raw outputs, besides the system: the same header, the same outputs."""
    info = data.info()
    # Which language each row names is part of its line; the header says whether the model was told.
    listener = getattr(task, "listener", None)
    codes = [
        *loaded.languages_told(task, info.languages),
        *(listener.languages_told(info.languages) if listener else ()),
    ]
    told = {"language": "each row's"} if any(codes) else {}
    after = {"after": first_ids(loaded.tokenizer)} if task.plain_text else {}
    return {
        "task": {**task.decides, **after},
        "decoding": {"strategy": "greedy", "max_new_tokens": limit.label, **told},
        "dtype": loaded.dtype_name,
        "device": loaded.device.type,
        "audio": {"decoder": info.audio_decoder, "resampler": info.resampler},
        "note": {"manifests": info.manifests, "data_fingerprint": info.fingerprint, "languages": info.languages},
    }


class SystemsDecoder:
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
        done = _Done(progress, lacking.size - int(lacking.sum()), lacking.size)
        report_progress(progress, "transcribe", done.count, done.total)
        for model in {id(system.loaded): None for system in systems}:
            columns = [column for column, system in enumerate(systems) if id(system.loaded) == model]
            self._run_model([systems[column] for column in columns], rows, lacking[:, columns], done)

    def _lacking(self, systems: Sequence[System], rows: Sequence[Row]) -> Lacking:
        lacking = np.ones((len(rows), len(systems)), dtype=np.bool_)
        for index, row_id in enumerate(self._data.ids()):
            if any(system.outputs.knows(row_id) for system in systems):
                row = rows[index]
                reference = self._task.target(row)
                lacking[index] = [not system.outputs.has(row, reference) for system in systems]
        return lacking

    def _run_model(self, systems: Sequence[System], rows: Sequence[Row], lacking: Lacking, done: _Done) -> None:
        """All systems of one model, which share its encoder."""
        indices = np.flatnonzero(lacking.any(axis=1))
        if not len(indices):
            return
        loaded, start = systems[0].loaded, 0
        slots = self._slots(loaded, rows)
        engines = EngineCache(slots)
        for window in windows(loaded, self._data, rows, indices, self._task, slots=slots):
            in_window = indices[start : start + len(window.rows)]
            start += len(in_window)
            for same in _equal(systems):
                needed = lacking[in_window][:, same]
                self._run_window([systems[column] for column in same], window, needed, engines, done)

    def _slots(self, loaded: LoadedModel, rows: Sequence[Row]) -> int:
        """Clips that are decoded at once, at most."""
        if self._batch_size != "auto":
            return self._batch_size
        longest = rows[int(np.argmax(self._data.seconds()))]
        return slots_that_fit(loaded, self._data, longest, self._task, self._limit)

    def _run_window(
        self, systems: Sequence[System], window: Window, lacking: Lacking, engines: EngineCache, done: _Done
    ) -> None:
        """Equal systems, decoded once."""
        ids = {row.id for row, lacks in zip(window.rows, lacking, strict=True) if lacks.any()}
        left = int(lacking.sum())
        files = {id(system.outputs): system.outputs for system in systems}  # on the disk they share one
        for outputs in decode_window(
            systems[0], window, ids, self._task, self._limit, engines=engines, group=engines.slots
        ):
            for file in files.values():
                file.append(outputs)
            left -= done.add(min(left, len(outputs) * len(systems)))
        done.add(left)  # rows whose audio cannot be used


@dataclass(slots=True)
class _Done:
    """How many of all outputs are there."""

    progress: Progress | None
    count: int
    total: int

    def add(self, more: int) -> int:
        """`more` outputs are there; returns `more`."""
        self.count += more
        if more:
            report_progress(self.progress, "transcribe", self.count, self.total)
        return more


def _equal(systems: Sequence[System]) -> list[list[int]]:
    """Indices of systems of one model that go without the same."""
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for column, system in enumerate(systems):
        groups.setdefault((system.part, tuple(system.removed)), []).append(column)
    return list(groups.values())


def slots_that_fit(loaded: LoadedModel, data: Dataset, longest: Row, task: Task, limit: TokenLimit) -> int:
    """What `--batch-size auto` is: as many clips as the free memory allows, if all were like the longest.

    Args:
        loaded: the whole model; it embeds the longest clip.
        data: reads its audio.
        longest: the row of the longest clip.
        task: what is asked.
        limit: how many tokens a clip may get.
    """
    if not loaded.engine or not supported(loaded.lm):
        return USUAL_BATCH_SIZE
    clips = read_clips(data, [longest], task)
    if not clips:
        return USUAL_BATCH_SIZE
    batch = embed(loaded, clips, task)
    (prompt,) = prompts_of(batch.prepared, [limit_of(loaded, limit, longest)])
    # The window that is decoded, with the embeddings of all its clips.
    return fitting_slots(loaded.lm, prompt.embeds, prompt.limit, held=WINDOW_BATCHES, free=free_memory(loaded.device))
