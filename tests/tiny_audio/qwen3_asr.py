from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, text_fields, tokenizer

AUDIO = "<|audio_pad|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% for part in message['content'] %}{{ part['text'] }}"
    "{% endfor %}{% elif message['role'] == 'user' %}<|user|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""As the real one, which has no place for words of the user."""


def build(depth: int) -> PreTrainedModel:
    config = Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder",
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 32,
            "output_dim": 32,
            "downsample_hidden_size": 4,
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
        timestamp_token_id=9,
        pad_token_id=0,
        eos_token_id=2,
    )
    return randomised(Qwen3ASRForConditionalGeneration(config))


def processor() -> Any:
    named = {"audio_token": AUDIO, "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    return Qwen3ASRProcessor(
        Qwen3ASRFeatureExtractor(feature_size=32),
        tokenizer(AUDIO, "<|audio_start|>", "<|audio_end|>", **named),
        chat_template=TEMPLATE,
    )


BUILDS = {"Qwen3ASRForConditionalGeneration": TinyAudio(build, processor)}
