"""Phi-4-multimodal: a conformer encoder whose output the decoder module itself puts in the place of audio tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from shoal.models.families.audio_llm import AudioLLM

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

AUDIO_INPUTS = ("audio_input_features", "audio_embed_sizes", "audio_attention_mask")


class Phi4Multimodal(AudioLLM):
    """`Phi4MultimodalForCausalLM`: flat (`model.layers`), with encoder and projector in `embed_tokens_extend`."""

    name = "phi4_multimodal"
    classes = ("Phi4MultimodalForCausalLM",)
    encodes_one_by_one = True
    # The encoder's attention is discouraged from looking at padding, not kept from it.
    adapter = "speech-lora"
    limits = "measured with its adapter for speech, which a checkpoint pruned in memory has in its weights"

    def encoder(self, model: PreTrainedModel) -> nn.Module | None:
        """The conformer."""
        return cast("nn.Module", self._audio(model).encoder)

    def projector(self, model: PreTrainedModel) -> nn.Module | None:
        """The two linear layers that are used when there is no image."""
        from torch import nn

        audio = self._audio(model)
        return nn.ModuleList([audio.up_proj_for_speech, audio.down_proj_for_speech])

    def audio_token(self, model: PreTrainedModel, processor: Any) -> int | None:
        """The one of the audio config."""
        return int(model.config.audio_config.audio_token_id)

    def call(self, model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """Embeddings with the audio in its place: what the decoder makes of its inputs before the first layer."""
        decoder: Any = self.decoder(model)
        audio = {name: inputs[name] for name in AUDIO_INPUTS if name in inputs}
        ids = inputs["input_ids"]
        embeds = decoder.embed_tokens_extend(ids, decoder.embed_tokens(ids), **audio)
        return {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}

    def _audio(self, model: PreTrainedModel) -> Any:
        decoder: Any = self.decoder(model)
        return decoder.embed_tokens_extend.audio_embed


FAMILY = Phi4Multimodal()
