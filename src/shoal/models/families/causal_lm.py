"""Text-only causal language models, found by structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.models.families.base import Family

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CausalLM(Family):
    """Any decoder-only language model whose layers can be found."""

    name = "causal_lm"
    encoder_names = ()
    projector_names = ()

    def matches(self, model: PreTrainedModel) -> bool:
        """Whether `model` is a decoder with a head and no encoder."""
        config = model.config
        try:
            alone = config.get_text_config() is config
        except ValueError:  # it holds several configs that could be a decoder's
            return False
        whole = alone and not getattr(config, "is_encoder_decoder", False)
        return whole and model.get_output_embeddings() is not None


FAMILY = CausalLM()
