"""Shoal's own encoder–projector–LLM (`shoal.models.speech_llm`), recognised by its model type.

A merged checkpoint is loaded with the copy of the class that lies in its folder, so the class object itself
says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.models.families.base import Family

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

MODEL_TYPE = "shoal_speech_llm"


class SpeechLLMFamily(Family):
    """`model.encoder`, `model.projector`, `model.decoder` (a causal LM with its head)."""

    name = "speech_llm"
    encoder_names = ("encoder",)
    projector_names = ("projector",)

    def matches(self, model: PreTrainedModel) -> bool:
        """Whether the config's model type is ours."""
        return bool(model.config.model_type == MODEL_TYPE)

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """The LM head of the language model inside."""
        return super().head(model.decoder)


FAMILY = SpeechLLMFamily()
