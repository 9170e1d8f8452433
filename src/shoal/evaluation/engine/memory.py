"""How many rows fit in memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

BatchSize = int | Literal["auto"]
"""Rows at once, at most; `auto` is as many as fit."""

SHARE = 0.7
"""Of the free memory, what is planned with: the rest is for what is not counted, and for other processes."""
MOST = {"cpu": 32, "cuda": 256}
"""Rows at once beyond which a step only takes longer in proportion."""
PREFILL_POSITIONS = {"cpu": 4096, "cuda": 32768}
"""Most positions, padding included, in one prefill: more rows wait for the next one."""
PREFILL_STATES = 24
"""Vectors of the hidden size that a position takes in a prefill, about: attention, MLP (4 times as wide), residuals."""
SLACK = 256
"""Columns of a cache besides a row's own: room to go on before columns are moved."""


@torch.inference_mode()
def cache_bytes(lm: nn.Module, embeds: Tensor) -> tuple[int, int]:
    """What one position takes: bytes of keys and values in all layers, and the size of the vocabulary.

    Args:
        lm: as for `shoal.evaluation.engine.Engine`.
        embeds: (T, d) of any prompt.
    """
    cache = DynamicCache(config=lm.config)
    first = embeds[None, :1]
    ones = torch.ones((1, 1), dtype=torch.long, device=embeds.device)
    output = lm(
        inputs_embeds=first,
        attention_mask=ones,
        position_ids=ones - 1,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    states: list[Any] = [states for layer in cache.layers for states in (layer.keys, layer.values)]
    return sum(tensor.nbytes for tensor in states if tensor is not None), output.logits.shape[-1]


def fitting_slots(lm: nn.Module, embeds: Tensor, limit: int, *, held: int, free: int) -> int:
    """How many rows can be decoded at once.

    Args:
        lm: as for `shoal.evaluation.engine.Engine`.
        embeds: (T, d) of the longest prompt there will be.
        limit: its limit in tokens.
        held: prompts that are held in memory for every row that is decoded.
        free: bytes to be had.

    Returns:
        At least 1, and no more than pays.
    """
    device = embeds.device.type
    position, vocabulary = cache_bytes(lm, embeds)
    columns = len(embeds) + limit + SLACK
    logits = vocabulary * (embeds.element_size() + 4)
    row = columns * position + logits + held * embeds.nbytes
    prefill = max(PREFILL_POSITIONS.get(device, 0), len(embeds)) * PREFILL_STATES * embeds[:1].nbytes
    fitting = int((SHARE * free - prefill) / row)
    return max(1, min(MOST.get(device, 32), fitting))
