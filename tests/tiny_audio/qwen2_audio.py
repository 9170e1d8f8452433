from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, template, text_fields, tokenizer

AUDIO = "<|AUDIO|>"


def build(depth: int) -> PreTrainedModel:
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 80,
            "max_source_positions": 100,
        },
        text_config={
            "model_type": "qwen2",
            **text_fields(depth, use_sliding_window=True, sliding_window=24, layer_types=alternating(depth)),
        },
        audio_token_index=5,
    )
    return randomised(Qwen2AudioForConditionalGeneration(config))


def processor() -> Any:
    return Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=80, chunk_length=2),
        tokenizer(AUDIO, "<|audio_bos|>", "<|audio_eos|>"),
        chat_template=template(f"<|audio_bos|>{AUDIO}<|audio_eos|>"),
    )


BUILDS = {"Qwen2AudioForConditionalGeneration": TinyAudio(build, processor)}
