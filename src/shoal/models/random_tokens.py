"""Random tokens to run a model on where no data are at hand: the same every time.

They are harsher than text: they reach rows of the embedding that text rarely uses, and a short and a long row in one
left-padded batch show wrong positions and wrong masks.
"""

from __future__ import annotations

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
