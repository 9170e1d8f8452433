from __future__ import annotations

from typing import Any

from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    PreTrainedModel,
    WhisperFeatureExtractor,
)

from tiny_audio.parts import TinyAudio, randomised, template, text_fields, tokenizer

AUDIO = "<|audio|>"


def build(depth: int) -> PreTrainedModel:
    config = GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_mel_bins": 80,
            "max_position_embeddings": 100,
        },
        text_config={"model_type": "llama", **text_fields(depth)},
        audio_token_id=5,
    )
    return randomised(GlmAsrForConditionalGeneration(config))


def processor() -> Any:
    return GlmAsrProcessor(
        WhisperFeatureExtractor(feature_size=80, chunk_length=2, return_attention_mask=True),
        tokenizer(AUDIO, "<|begin_of_audio|>", "<|end_of_audio|>"),
        chat_template=template(f"<|begin_of_audio|>{AUDIO}<|end_of_audio|>"),
        audio_token=AUDIO,
    )


BUILDS = {"GlmAsrForConditionalGeneration": TinyAudio(build, processor)}
