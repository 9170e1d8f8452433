"""A tiny SpeechLLM in training, for tests of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tiny_speech
from shoal import tasks
from shoal.models.loading import LoadedModel
from shoal.models.lora import add_lora, linear_layers
from shoal.training.batches import examples_of, make_batches
from shoal.training.examples import Batches
from shoal.training.sampling import SampledClips, sample_clips
from shoal.training.settings import Objective
from shoal.training.step import ModelWithLoss


def adapted(*, seed: int = 0, dropout: float = 0.0, **text: Any) -> LoadedModel:
    """A tiny SpeechLLM whose projector and low-rank layers are trained; the low-rank layers do something already."""
    import torch

    loaded = tiny_speech.loaded(seed=seed, **text)
    names = linear_layers(loaded.model, [loaded.family.layers_path(loaded.model)])
    torch.manual_seed(seed)
    add_lora(loaded.model, names, rank=2, alpha=4, dropout=dropout)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    loaded.model.projector.requires_grad_(True)
    return loaded


def batches_of(loaded: LoadedModel, folder: Path, count: int = 6, **options: Any) -> Batches:
    """All clips of `tiny_speech.dataset`."""
    data = tiny_speech.dataset(folder / "clips", count)
    return make_batches(loaded, examples_of(data, tasks.get("asr")), features=folder / "features", **options)


def student_of(
    folder: Path, *, objective: Objective | None = None, loaded: LoadedModel | None = None, **options: Any
) -> ModelWithLoss:
    loaded = loaded or adapted(**options)
    return ModelWithLoss(loaded, batches_of(loaded, folder), objective or Objective())


def sampled_of(batches: Batches, steps: int = 4, clips: int = 4, seed: int = 0) -> SampledClips:
    return sample_clips(
        np.zeros(len(batches.examples), np.int64),
        batches.lengths,
        weights=[None],
        steps=steps,
        clips=clips,
        seed=seed,
    )
