"""From data sets to batches, and what the model loses on clips that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shoal.decoder.logits import check_losses, losses_at
from shoal.decoder.loss_targets import Targets
from shoal.errors import ManifestError
from shoal.models.weights import cache_dir
from shoal.progress import Progress, report_progress
from shoal.training.augment import PLAIN, Variant
from shoal.training.cached_batches import CachedBatches
from shoal.training.encoder_states import EncoderStates
from shoal.training.examples import Batches, TrainingExample, to_device
from shoal.training.micro_batches import micro_batches
from shoal.training.processes import Processes
from shoal.training.processor_batches import ProcessorBatches
from shoal.training.step import run_decoder

if TYPE_CHECKING:
    from shoal.data import Clip, Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind
    from shoal.tasks import Task

Floats = npt.NDArray[np.float64]


def examples_of(
    data: Dataset, task: Task, source: int = 0, *, rows: Sequence[Row] | None = None
) -> list[TrainingExample]:
    """The rows of a data set, or some of them, as examples; answers are read now, so that a bad row shows at once.

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """
    rows = data.rows if rows is None else rows
    for row in rows:
        task.target(row)
    return [TrainingExample(row, task, data, source) for row in rows]


def make_batches(
    loaded: LoadedModel,
    examples: Sequence[TrainingExample],
    *,
    input: InputKind = "speech",
    through_projector: bool = False,
    ctc_tokens: bool = False,
    variants: Sequence[Variant] = (PLAIN,),
    features: Path | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Batches:
    """The batches for a model: of stored states for Shoal's own SpeechLLM, by its own processor for any other.

    Args:
        loaded: the model.
        examples: clips; those whose audio cannot be decoded are left out.
        input: what stands in the audio's place.
        through_projector: whether the projector is trained.
        ctc_tokens: whether a CTC loss is taken.
        variants: how clips are altered; `ProcessorBatches` have plain ones only.
        features: where states are kept; default is Shoal's cache.
        processes: who encodes which clips.
        progress: called with ("encode", done, total).

    Raises:
        ManifestError: no clip is left.
    """
    if loaded.kind == "speech_llm" and input == "speech":
        return _stacked(loaded, examples, ctc_tokens, variants, features, processes or Processes(), progress)
    if input == "speech":
        usable = {id(data): {clip.id for clip in data.clips(_rows(examples, data))} for data in _datasets(examples)}
        examples = [example for example in examples if example.row.id in usable[id(example.data)]]
    _check_any(examples)
    return ProcessorBatches(loaded, examples, input=input, through_projector=through_projector)


def _stacked(
    loaded: LoadedModel,
    examples: Sequence[TrainingExample],
    ctc_tokens: bool,
    variants: Sequence[Variant],
    features: Path | None,
    processes: Processes,
    progress: Progress | None,
) -> CachedBatches:
    store = _store(loaded, features)
    refs: dict[tuple[int, str, Variant], Any] = {}
    for _ in range(2 if processes.world > 1 else 1):
        # The second time, what the other processes have encoded is there too.
        for data in _datasets(examples):
            stored = store.ensure(
                data, _rows(examples, data), variants, rank=processes.rank, world=processes.world, progress=progress
            )
            refs |= {(id(data), row, variant): ref for (row, variant), ref in stored.items()}
        processes.wait()

    def key(example: TrainingExample, variant: Variant) -> tuple[int, str, Variant]:
        return id(example.data), example.row.id, variant

    usable = [example for example in examples if all(key(example, way) in refs for way in variants)]
    _check_any(usable)
    chosen = [[refs[key(example, way)] for way in variants] for example in usable]
    return CachedBatches(loaded, usable, store.files, chosen, ctc_tokens=ctc_tokens)


def _store(loaded: LoadedModel, folder: Path | None) -> EncoderStates:
    model, processor = cast("Any", (loaded.model, loaded.processor))
    return EncoderStates(model, processor, folder or cache_dir() / "features")


def _datasets(examples: Sequence[TrainingExample]) -> list[Dataset]:
    return list({id(example.data): example.data for example in examples}.values())


def _rows(examples: Sequence[TrainingExample], data: Dataset) -> list[Row]:
    return [example.row for example in examples if example.data is data]


def _check_any(examples: Sequence[TrainingExample]) -> None:
    if not examples:
        raise ManifestError("no usable clip is left", fix="see the skipped rows above")


@dataclass(frozen=True)
class Losses:
    """What a model loses on each clip."""

    ids: list[str]
    sums: Floats
    """(E,) nats over the clip's target tokens."""
    counts: npt.NDArray[np.int64]
    """(E,) target tokens."""

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.sums.sum() / self.counts.sum())


@torch.inference_mode()
def response_losses(
    loaded: LoadedModel, batches: Batches, *, positions: int = 4096, progress: Progress | None = None
) -> Losses:
    """The teacher-forced loss of every example.

    Args:
        loaded: the model, as it is now.
        batches: of clips that were not trained on.
        positions: padded positions that pass through the decoder at once.
        progress: called with ("loss", clips done, clips in all).

    Raises:
        MeasureError: a loss is not finite.
    """
    order = np.argsort(batches.lengths, kind="stable")
    sums, counts = np.zeros(len(order)), np.zeros(len(order), np.int64)
    report_progress(progress, "loss", 0, len(order))
    for part in micro_batches(batches.lengths[order], positions=positions):
        chosen = order[part]
        batch = batches.collate(chosen, np.zeros_like(chosen))
        inputs = batches.inputs(loaded, to_device(batch, loaded.device))
        _, last = run_decoder(loaded, inputs, (), whole=True)
        assert last is not None
        states = last.flatten(0, 1).index_select(0, inputs.index)
        losses = losses_at(loaded, states, inputs.tokens)
        check_losses(losses, Targets(inputs.rows, inputs.index, inputs.tokens), batches.names(chosen))
        rows = inputs.rows.cpu().numpy()
        sums[chosen] = np.bincount(rows, losses.double().cpu().numpy(), minlength=len(chosen))
        counts[chosen] = np.bincount(rows, minlength=len(chosen))
        report_progress(progress, "loss", int(min(part.stop, len(order))), len(order))
    return Losses(batches.names(np.arange(len(order))), sums, counts)


def fill_audio_cache(
    loaded: LoadedModel,
    data: Dataset,
    rows: Sequence[Row] | None = None,
    *,
    features: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Let a SpeechLLM of Shoal's own prepare clips from stored states: its encoder is not run for them again.

    The states are in half precision in the store. Other models are left as they are.

    Args:
        loaded: the model, whose cache of projected audio is filled, as far as it has room.
        data: the clips.
        rows: some of its rows; default all.
        features: where states are kept; default is Shoal's cache.
        progress: called with ("encode", done, total).
    """
    if loaded.kind != "speech_llm":
        return
    store, projector = _store(loaded, features), cast("Any", loaded.model.projector)
    rows = list(data.rows if rows is None else rows)
    by_row = {row: ref for (row, _), ref in store.ensure(data, rows, progress=progress).items()}
    weight = projector.output.weight

    def project(clips: list[Clip]) -> list[Tensor]:
        states = [torch.from_numpy(store.files.read([by_row[clip.id]])) for clip in clips]
        vectors: list[Tensor] = projector([state.to(weight.device, weight.dtype) for state in states])
        return vectors

    with torch.inference_mode():
        for clip in data.clips(rows):
            loaded.audio_cache.get([clip], project)
