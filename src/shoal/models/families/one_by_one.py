"""Clips through a processor one by one, then stacked.

Some feature extractors let the padding after a clip into its last frames, so that a clip sounds a little different in
another batch. Made alone, its features are always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.models.families.audio_llm import Samples

LEFT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one value for each token, padded on the left; all others are padded at their end."""


def one_by_one(processor: Any, text: str, clips: Sequence[Samples]) -> dict[str, Tensor]:
    """What `processor` makes of `text` with each of `clips`, as one batch.

    Args:
        processor: takes `text`, `audio` and `return_tensors`.
        text: the prompt with the placeholder of one clip.
        clips: B clips, float32 samples (n,).

    Returns:
        Tensors with first dimension B; what a row lacks in length is the pad token, and zero or false elsewhere.
    """
    from shoal.models.batch import padded

    rows = [dict(processor(text=[text], audio=[clip], return_tensors="pt")) for clip in clips]
    pad = int(getattr(processor.tokenizer, "pad_token_id", None) or 0)
    return {
        name: padded([row[name] for row in rows], left=name in LEFT, value=pad if name == "input_ids" else 0)
        for name in rows[0]
    }
