"""Gemma 3n: four states side by side (AltUp), an embedding for each layer, shared keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.models.families.audio_llm import AudioLLM
from shoal.models.families.kv_sharing import SharedKeys

if TYPE_CHECKING:
    from torch import Tensor


def side_by_side(hidden: Tensor) -> Tensor:
    """(4, B, T, d) → (B, T, 4·d): all of what a layer takes and gives, since the end of the decoder reads all four."""
    return hidden.permute(1, 2, 0, 3).flatten(2)


class Gemma3n(SharedKeys, AudioLLM):
    """`Gemma3nForConditionalGeneration`."""

    name = "gemma3n"
    classes = ("Gemma3nForConditionalGeneration",)
    projector_names = ("embed_audio",)
    # Every layer reads the tokens, not only their embeddings.
    engine = False
    limits = (
        "Distances are taken over the four states of AltUp together. Every clip takes the same number of audio "
        "positions (188, 30 s), most of them padding for a short one. Layers whose keys and values later ones read "
        "cannot be removed. Its vision tower needs timm."
    )

    def state(self, hidden: Tensor) -> Tensor:
        """The four states side by side."""
        return side_by_side(hidden)


FAMILY = Gemma3n()
