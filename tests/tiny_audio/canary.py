from __future__ import annotations

from typing import Any

from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CanaryProcessor,
    ParakeetFeatureExtractor,
    PreTrainedModel,
)

from tiny_audio.parts import VOCABULARY, TinyAudio, randomised, tokenizer

SPECIAL = ("<|startofcontext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|pnc|>", "<|nopnc|>")
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "<|startofcontext|><|startoftranscript|><|{{ part['source_language'] }}|><|{{ part['target_language'] }}|>"
    "{% if part['punctuation'] %}<|pnc|>{% else %}<|nopnc|>{% endif %}{% endif %}{% endfor %}{% endfor %}"
)
"""As the real one: no place for words of the user, and none for the audio."""
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def build(depth: int) -> PreTrainedModel:
    config = CanaryConfig(
        encoder_config={
            "model_type": "parakeet_encoder",
            **SIZE,
            "num_hidden_layers": 2,
            "num_mel_bins": 16,
            "subsampling_conv_channels": 4,
            "scale_input": False,
            "layerdrop": 0.0,
        },
        decoder_config={
            **SIZE,
            **TOKENS,
            "num_hidden_layers": depth,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 512,
        },
        **TOKENS,
        decoder_start_token_id=5,
    )
    return randomised(CanaryForConditionalGeneration(config))


def processor() -> Any:
    return CanaryProcessor(ParakeetFeatureExtractor(feature_size=16), tokenizer(*SPECIAL), chat_template=TEMPLATE)


BUILDS = {"CanaryForConditionalGeneration": TinyAudio(build, processor)}
