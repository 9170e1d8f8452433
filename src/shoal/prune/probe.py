"""Inputs on which a checkpoint is compared with the model in memory: no data needed, the same every time.

Random tokens are harsher than text: they reach rows of the embedding that text rarely uses, and a short and
a long row in one left-padded batch show wrong positions and wrong masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.data.clip import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.models.loading import LoadedModel

LENGTHS = (5, 12)
"""Tokens of the two rows of the padded batch."""
SECONDS = (0.7, 1.3)
"""Lengths of the two clips."""
INSTRUCTION = "Transcribe the speech."


def probe(loaded: LoadedModel) -> dict[str, dict[str, Tensor]]:
    """Verification inputs for a model: text for every model, and audio for one that hears.

    Returns:
        Case → keyword arguments of `model(**inputs)`; every batch has two rows of different lengths,
        left-padded.
    """
    config = loaded.family.text_config(loaded.model)
    audio = getattr(loaded.model.config, "audio_token_id", None)
    pad = getattr(config, "pad_token_id", None) or 0
    cases = {"text": token_batch(config.vocab_size, pad=pad, avoid=audio)}
    if loaded.kind == "speech_llm":
        cases["audio"] = audio_batch(loaded)
    return cases


def token_batch(
    vocabulary: int, *, pad: int = 0, avoid: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Random `input_ids` (none of them `avoid`) and `attention_mask`, (2, T), the first row left-padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (len(LENGTHS), max(LENGTHS)), generator=generator)
    if avoid is not None:
        ids[ids == avoid] = (avoid + 1) % vocabulary
    mask = torch.ones_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, : max(LENGTHS) - length] = pad if 0 <= pad < vocabulary else 0
        mask[row, : max(LENGTHS) - length] = 0
    return {"input_ids": ids, "attention_mask": mask}


def audio_batch(loaded: LoadedModel) -> dict[str, Tensor]:
    """Two clips of noise with the model's own prompt, through its processor."""
    generator = np.random.default_rng(0)
    clips = [generator.normal(0, 0.1, int(s * SAMPLE_RATE)).astype(np.float32) for s in SECONDS]
    prompt = loaded.processor.format_prompt(INSTRUCTION)  # type: ignore[union-attr]
    batch = loaded.processor(text=[prompt, prompt], audio=clips, padding_side="left")  # type: ignore[misc]
    dtype = loaded.model.dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
