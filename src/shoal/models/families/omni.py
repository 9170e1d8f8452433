"""What Qwen's Omni models share: a thinker that hears and answers in text, and a talker that reads its states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


class Omni(AudioLLM):
    """The thinker alone, or the whole model with the thinker inside: the thinker's decoder is what is pruned."""

    projector_names = ()
    # The encoder ends with the projection, which has no module of its own.
    generates_speech = True

    def answering_path(self, model: PreTrainedModel) -> str:
        """`thinker` in the whole model, which has no forward pass of its own."""
        return "thinker" if hasattr(model, "thinker") else ""

    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """The thinker's decoder."""
        return super().decoder(self.answering(model))

    def encoder(self, model: PreTrainedModel) -> nn.Module | None:
        """The thinker's speech encoder, projection included."""
        return super().encoder(self.answering(model))

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """The thinker's head."""
        return super().head(self.answering(model))

    def text_config(self, model: PreTrainedModel) -> PreTrainedConfig:
        """The config of the thinker's decoder."""
        return thinker_config(model.config).text_config

    def audio_token(self, model: PreTrainedModel, processor: Any) -> int | None:
        """The thinker's audio token."""
        return super().audio_token(self.answering(model), processor)

    def speaks(self, class_name: str) -> bool:
        """Only the whole model has a talker."""
        return "Thinker" not in class_name

    def limits_of(self, class_name: str) -> str:
        """Only the whole model has a talker."""
        return "" if "Thinker" in class_name else self.limits


def thinker_config(config: Any) -> Any:
    """The thinker's config, given its own or that of the whole model."""
    return getattr(config, "thinker_config", config)
