"""The decoders of Gemma 3n and Gemma 4 as text models of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.gemma3n import side_by_side
from shoal.models.families.gemma4 import GlobalLayers
from shoal.models.families.kv_sharing import SharedKeys

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

ALTUP = "altup_num_inputs"
"""A field that only Gemma 3n has."""


class GemmaText(GlobalLayers):
    """`Gemma3nForCausalLM`, `Gemma4ForCausalLM` and `Gemma4UnifiedForCausalLM`."""

    name = "gemma_text"
    classes = ("Gemma3nForCausalLM", "Gemma4ForCausalLM", "Gemma4UnifiedForCausalLM")
    encoder_names = ()
    projector_names = ()

    def matches(self, model: PreTrainedModel) -> bool:
        """Whether the model's class is one of `classes`."""
        return type(model).__name__ in self.classes

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """In Gemma 3n, any layer may be the last."""
        owner = SharedKeys if hasattr(config, ALTUP) else GlobalLayers
        return owner.pruned_fields(self, config, keep)

    def state(self, hidden: Tensor) -> Tensor:
        """In Gemma 3n, the four states side by side."""
        return side_by_side(hidden) if hidden.dim() > 3 else hidden


FAMILY = GemmaText()
