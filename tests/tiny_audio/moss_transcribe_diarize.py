from __future__ import annotations

from typing import Any

from transformers import (
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    MossTranscribeDiarizeForConditionalGeneration,
    MossTranscribeDiarizeProcessor,
    PreTrainedModel,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, template, text_fields, tokenizer

AUDIO, BEGIN, END = "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"


def build(depth: int) -> PreTrainedModel:
    config = MossTranscribeDiarizeConfig(
        audio_config={
            "num_mel_bins": 20,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_source_positions": 100,
        },
        text_config={
            "model_type": "qwen3",
            **text_fields(
                depth,
                head_dim=8,
                use_sliding_window=True,
                sliding_window=24,
                layer_types=alternating(depth),
                tie_word_embeddings=True,
            ),
        },
        audio_token_id=5,
        audio_chunk_size=32_000,
    )
    return randomised(MossTranscribeDiarizeForConditionalGeneration(config))


def processor() -> Any:
    return MossTranscribeDiarizeProcessor(
        MossTranscribeDiarizeFeatureExtractor(feature_size=20, chunk_length=2),
        tokenizer(AUDIO, BEGIN, END),
        chat_template=template(f"{BEGIN}{AUDIO}{END}"),
        time_marker_every_seconds=1,
    )


BUILDS = {"MossTranscribeDiarizeForConditionalGeneration": TinyAudio(build, processor)}
