from __future__ import annotations

from transformers import (
    FunAsrNanoConfig,
    FunAsrNanoForConditionalGeneration,
    PreTrainedModel,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, text_fields


def build(depth: int) -> PreTrainedModel:
    config = FunAsrNanoConfig(
        # One of the three encoder layers predicts time stamps; the projector has layers of its own.
        audio_config={
            "model_type": "fun_asr_nano_encoder",
            "num_mel_bins": 20,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_timestamp_prediction_layers": 1,
        },
        adaptor_config={
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 8,
            "num_hidden_layers": 2,
            "projector_hidden_size": 24,
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
    )
    return randomised(FunAsrNanoForConditionalGeneration(config))


BUILDS = {
    "FunAsrNanoForConditionalGeneration": TinyAudio(build, no_processor="its feature extractor needs torchaudio"),
}
