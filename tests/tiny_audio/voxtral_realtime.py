from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    VoxtralRealtimeForConditionalGeneration,
    VoxtralRealtimeProcessor,
)

from tiny_audio import mistral
from tiny_audio.parts import TinyAudio, randomised, text_fields


def build(depth: int) -> PreTrainedModel:
    config = VoxtralRealtimeConfig(
        audio_config={
            "model_type": "voxtral_realtime_encoder",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 8,
            "num_mel_bins": mistral.MEL_BINS,
            "sliding_window": 30,
        },
        text_config={
            "model_type": "voxtral_realtime_text",
            **text_fields(depth, vocab_size=mistral.VOCABULARY, head_dim=8, pad_token_id=11, sliding_window=20),
        },
        default_num_delay_tokens=2,
    )
    return randomised(VoxtralRealtimeForConditionalGeneration(config))


def processor() -> Any:
    stream = {
        "transcription_format": "streaming",
        "transcription_delay_ms": 160.0,
        "streaming_look_ahead_ms": 2.5,
        "streaming_look_back_ms": 52.5,
        "streaming_n_left_pad_tokens": 4,
    }
    return VoxtralRealtimeProcessor(
        VoxtralRealtimeFeatureExtractor(feature_size=mistral.MEL_BINS), mistral.tokenizer(**stream)
    )


BUILDS = {
    "VoxtralRealtimeForConditionalGeneration": TinyAudio(
        build, processor if mistral.AVAILABLE else None, no_processor=mistral.MISSING
    )
}
