"""Canary: a FastConformer, and a decoder that hears it by cross-attention and is told both languages by tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.models.families.audio_llm import Question, Samples
from shoal.models.families.moonshine import Moonshine
from shoal.models.families.whisper import absolute_positions

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

ENGLISH = "en"
"""What the processor takes a clip for whose language it is not told."""


class Canary(Moonshine):
    """`CanaryForConditionalGeneration`; each clip is encoded alone, as in Moonshine."""

    name = "canary"
    classes = ("CanaryForConditionalGeneration",)
    limits = (
        "instructed by tokens only: the language that is spoken (of the row; where none is named, English) and the one "
        "to write"
    )

    def text_config(self, model: PreTrainedModel) -> PreTrainedConfig:
        """The decoder's own."""
        config: PreTrainedConfig = model.config.decoder_config
        return config

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Those that it was trained with."""
        from transformers.models.canary.processing_canary import LANGUAGE_CODE_TO_NAME

        return LANGUAGE_CODE_TO_NAME.keys()

    def features(self, processor: Any, clips: Sequence[Samples]) -> dict[str, Tensor]:
        """Spectrograms (B, frames, mel) and their mask."""
        rate = self.sampling_rate(processor)
        return dict(processor.feature_extractor(list(clips), sampling_rate=rate, return_tensors="pt"))

    def beginning(self, model: PreTrainedModel, processor: Any, question: Question, clips: int) -> dict[str, Tensor]:
        """The processor's prompt for each clip."""
        spoken = [language or ENGLISH for language in question.spoken(clips)]
        silence = [np.zeros(1, dtype=np.float32)] * clips
        prompts = processor.apply_transcription_request(
            silence, source_language=spoken, target_language=question.into or spoken, tokenize=False
        )
        tokens = processor.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
        return {"decoder_input_ids": tokens["input_ids"], "decoder_attention_mask": tokens["attention_mask"]}

    def with_tokens(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """With positions, which are sinusoids."""
        return super().with_tokens(inputs, ids, mask) | absolute_positions(mask)

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens over two seconds of noise."""
        import torch

        from shoal.models.random_tokens import noise, token_batch

        tokens = token_batch(self.text_config(model).vocab_size, pad=model.config.pad_token_id or 0)
        features = noise((2, 200, model.config.encoder_config.num_mel_bins), model.dtype)
        audio = {"input_features": features, "attention_mask": torch.ones(features.shape[:2], dtype=torch.bool)}
        return self.with_tokens(audio, tokens["input_ids"], tokens["attention_mask"])


FAMILY = Canary()
