"""Inputs on which a checkpoint is compared with the model in memory: no data needed, the same every time.

Random tokens are harsher than text: they reach rows of the embedding that text rarely uses, and a short and
a long row in one left-padded batch show wrong positions and wrong masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from shoal.data.clip import SAMPLE_RATE
from shoal.decoder.stock_inputs import request
from shoal.errors import ModelError
from shoal.models.batch import on_device
from shoal.models.families.audio_llm import AudioLLM, Question
from shoal.models.random_tokens import token_batch

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.models.loading import LoadedModel

SECONDS = (0.7, 1.3)
"""Lengths of the two clips."""
INSTRUCTION = "Transcribe the speech."
DECODING = "decoding"
"""A case for `generate` only: there is more audio in it than a forward pass over its tokens takes."""


def probe(loaded: LoadedModel) -> dict[str, dict[str, Tensor]]:
    """Verification inputs for a model: text for every model, and audio for one that hears.

    Returns:
        Case → keyword arguments of `model(**inputs)`; every batch has two rows of different lengths,
        left-padded.
    """
    if isinstance(loaded.family, AudioLLM):
        return _native(loaded, loaded.family)
    config = loaded.family.text_config(loaded.model)
    audio = getattr(loaded.model.config, "audio_token_id", None)
    pad = getattr(config, "pad_token_id", None) or 0
    cases = {"text": token_batch(config.vocab_size, pad=pad, avoid=audio)}
    if loaded.kind == "speech_llm" and loaded.processor is not None:
        cases["audio"] = audio_batch(loaded)
    return cases


def _native(loaded: LoadedModel, family: AudioLLM) -> dict[str, dict[str, Tensor]]:
    """Tokens without audio where the model runs so, and noise through its own processor where there is one."""
    silent = family.silent_inputs(loaded.model)
    cases = {} if silent is None else _cases("text", loaded, family, silent)
    if "speech" in loaded.inputs and (inputs := _audible(loaded, family, needed=not cases)) is not None:
        cases.pop(DECODING, None)
        cases |= _cases("audio", loaded, family, inputs)
    if not cases:
        raise ModelError(
            "it cannot run on tokens alone and there is no way to give it audio, so a result cannot be checked",
            where=loaded.ref,
            fix="put the model's processor files beside its weights",
        )
    return cases


def _audible(loaded: LoadedModel, family: AudioLLM, *, needed: bool) -> dict[str, Any] | None:
    """Noise as the model's processor gives it; None where that cannot be had (no chat template, say) and need not be.

    The report names the inputs that a checkpoint was compared on, so it tells when there was no audio among them.
    """
    clips = noise(family.sampling_rate(loaded.processor))
    try:
        inputs = request(loaded, family, clips, Question(INSTRUCTION))
    except ModelError:
        if needed:
            raise
        return None
    return on_device(inputs, loaded.device, loaded.audio_dtype)


def _cases(name: str, loaded: LoadedModel, family: AudioLLM, inputs: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """`inputs` under `name`; where a forward pass takes less of them, whole for decoding too."""
    forward = family.forward_inputs(loaded.model, inputs)
    cases = {name: _tensors(forward)}
    if forward is not inputs:
        # Copies: the cases are written to one file, which takes no tensor twice.
        cases[DECODING] = {key: value.clone() for key, value in _tensors(inputs).items()}
    return cases


def _tensors(inputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


def noise(rate: int = SAMPLE_RATE) -> list[npt.NDArray[np.float32]]:
    """Two clips of noise, the same every time, at `rate` Hz."""
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, int(s * rate)).astype(np.float32) for s in SECONDS]


def audio_batch(loaded: LoadedModel) -> dict[str, Tensor]:
    """Two clips of noise with the model's own prompt, through its processor."""
    clips = noise()
    prompt = loaded.processor.format_prompt(INSTRUCTION)  # type: ignore[union-attr]
    batch = loaded.processor(text=[prompt, prompt], audio=clips, padding_side="left")  # type: ignore[misc]
    dtype = loaded.model.dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
