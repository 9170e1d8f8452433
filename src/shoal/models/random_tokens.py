"""Random tokens, codes and features to run a model on where no data are at hand: the same every time.

Tokens are harsher than text: they reach rows of the embedding that text rarely uses, and a short and a long row in one
left-padded batch show wrong positions and wrong masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LENGTHS = (5, 12)
"""Tokens of the two rows of the padded batch."""


def token_batch(vocabulary: int, *, pad: int = 0, avoid: int | None = None, seed: int = 0) -> dict[str, Tensor]:
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


def random_codes(codes: int, shape: Sequence[int]) -> Tensor:
    """Codes of an audio codec in 0 … `codes`-1, int64."""
    return torch.randint(0, codes, tuple(shape), generator=torch.Generator().manual_seed(0))


def noise(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Standard normal features or samples."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)).to(dtype)
