"""Gemma 4: global layers with settings of their own, and in the small ones shared keys and an embedding per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families import fields
from shoal.models.families.audio_llm import AudioLLM
from shoal.models.families.kv_sharing import SharedKeys

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LAST = "full_attention"
"""What the class makes of the last layer, whatever the config says."""


class GlobalLayers(SharedKeys):
    """What follows the depth in a Gemma 4 decoder."""

    handles = SharedKeys.handles | {"per_layer_config"}

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """And the settings of the global layers.

        Raises:
            ModelError: the last layer would be a local one, or see `SharedKeys`.
        """
        if config.layer_types[keep[-1]] != LAST:
            raise fields.refusal(config, "layer_types", f"has to end with {LAST}, and layer {keep[-1]} is none")
        values = super().pruned_fields(config, keep)
        if config.is_heterogeneous:
            values["per_layer_config"] = fields.kept_overrides(config, keep)
        return values


class Gemma4(GlobalLayers, AudioLLM):
    """`Gemma4ForConditionalGeneration`."""

    name = "gemma4"
    classes = ("Gemma4ForConditionalGeneration",)
    projector_names = ("embed_audio",)
    # Every layer may read the tokens, not only their embeddings.
    engine = False
    limits = "The last layer has to be a global one. Layers whose keys and values later ones read cannot be removed."


FAMILY = Gemma4()
