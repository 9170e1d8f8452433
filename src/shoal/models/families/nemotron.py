"""NVIDIA's Nemotron speech LLMs: a Nemotron-H decoder, whose layers are Mamba, attention, MLP or mixture of experts.

A layer is one of the four, not a pair of them, and `layers_block_type` lists which; the depth is the list's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from shoal.errors import ModelError
from shoal.models.families.audio_llm import AudioLLM

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ATTENTION = "full_attention"


class Nemotron(AudioLLM):
    """A Nemotron-H decoder behind a speech encoder; asked without thinking."""

    template_options: ClassVar[Mapping[str, Any]] = {"enable_thinking": False}
    limits = "a layer is a Mamba, attention, MLP or MoE block, and one of attention has to stay"

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """See `Family.pruned_fields`.

        Raises:
            ModelError: no layer of attention is left; the cache of the stock class counts its tokens there.
        """
        blocks: Any = config.layers_block_type
        if all(blocks[layer] != ATTENTION for layer in keep):
            raise ModelError(
                f"no {ATTENTION} layer of layers_block_type would be left, and without one it cannot decode",
                where=type(config).__name__,
                fix="keep one of the layers " + ", ".join(str(i) for i, b in enumerate(blocks) if b == ATTENTION),
            )
        return super().pruned_fields(config, keep)
