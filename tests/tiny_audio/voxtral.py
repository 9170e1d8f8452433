from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)

from tiny_audio import mistral
from tiny_audio.parts import TinyAudio, randomised, text_fields


def build(depth: int) -> PreTrainedModel:
    config = VoxtralConfig(
        audio_config={
            "model_type": "voxtral_encoder",
            "hidden_size": 8,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_mel_bins": mistral.MEL_BINS,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "llama",
            **text_fields(depth, vocab_size=mistral.VOCABULARY, head_dim=8, pad_token_id=11),
        },
        audio_token_id=24,
    )
    return randomised(VoxtralForConditionalGeneration(config))


def processor(*, converted: bool = not mistral.AVAILABLE) -> Any:
    make = mistral.converted_tokenizer if converted else mistral.tokenizer
    return VoxtralProcessor(WhisperFeatureExtractor(feature_size=mistral.MEL_BINS), make(chunk_length_s=30.0))


BUILDS = {"VoxtralForConditionalGeneration": TinyAudio(build, processor)}
