"""Batches of one clip, put together after the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shoal.errors import ModelError
from shoal.models.batch import Kind, PreparedBatch

STACKED = frozenset({"inputs_embeds", "attention_mask"})
"""What a decoder may be called with, so that calls for single clips can be put together."""


def stacked(singles: Sequence[PreparedBatch], padding_side: str) -> PreparedBatch:
    """One batch of B rows from B batches of one row, padded to the longest.

    Args:
        singles: batches of one row, of the same model.
        padding_side: `left` or `right`.

    Raises:
        ModelError: the decoder is called with more than embeddings and a mask.
    """
    if more := sorted({name for single in singles for name in single.call} - STACKED):
        raise ModelError(
            f"clips that are encoded alone cannot be put together: its decoder is called with {', '.join(more)}",
            where=", ".join(single.ids[0] for single in singles),
            fix="measure one clip at a time",
        )
    length = max(single.kinds.shape[1] for single in singles)
    kinds = _rows([single.kinds for single in singles], length, int(Kind.PAD), padding_side)
    embeds = _rows([single.embeds for single in singles], length, 0, padding_side)
    return PreparedBatch(
        [name for single in singles for name in single.ids],
        embeds,
        kinds,
        _rows([single.token_ids for single in singles], length, -1, padding_side),
        call={"inputs_embeds": embeds, "attention_mask": (kinds != Kind.PAD).long()},
    )


def _rows(parts: Sequence[Tensor], length: int, fill: int, side: str) -> Tensor:
    """(B, length, …) from B tensors (1, n, …)."""
    whole = torch.full((len(parts), length, *parts[0].shape[2:]), fill, dtype=parts[0].dtype)
    whole = whole.to(parts[0].device)
    for row, part in enumerate(parts):
        start = length - part.shape[1] if side == "left" else 0
        whole[row, start : start + part.shape[1]] = part[0]
    return whole
