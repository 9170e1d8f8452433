"""Batches of one clip, put together after the encoder."""

from __future__ import annotations

from collections.abc import Sequence

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
    left = padding_side == "left"
    kinds = padded([single.kinds for single in singles], left=left, value=int(Kind.PAD))
    embeds = padded([single.embeds for single in singles], left=left, value=0)
    return PreparedBatch(
        [name for single in singles for name in single.ids],
        embeds,
        kinds,
        padded([single.token_ids for single in singles], left=left, value=-1),
        call={"inputs_embeds": embeds, "attention_mask": (kinds != Kind.PAD).long()},
        ends=all(single.ends for single in singles),
    )


def padded(tensors: Sequence[Tensor], *, left: bool, value: int) -> Tensor:
    """(1, …) each → (B, …), every dimension as long as the longest, `value` where a row is shorter.

    Args:
        tensors: B tensors with as many dimensions.
        left: whether `value` stands before what a row has, not after it.
        value: what to fill with.
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    whole = tensors[0].new_full((len(tensors), *shape[1:]), value)
    for row, tensor in zip(whole, tensors, strict=True):
        places = [slice(-size, None) if left else slice(size) for size in tensor.shape[1:]]
        row[tuple(places)] = tensor[0]
    return whole
