from __future__ import annotations

from typing import Any

from transformers import (
    EncodecFeatureExtractor,
    MoshiConfig,
    MoshiForConditionalGeneration,
    PreTrainedModel,
)

from tiny_audio.csm import CODEBOOKS, MIMI
from tiny_audio.parts import VOCABULARY, TinyAudio, randomised, tokenizer


def build(depth: int) -> PreTrainedModel:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = MoshiConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=depth,
        **heads,
        ffn_dim=48,
        max_position_embeddings=512,
        sliding_window=512,
        num_codebooks=CODEBOOKS,
        audio_encoder_config=MIMI,
        depth_decoder_config={"hidden_size": 16, "num_hidden_layers": 2, **heads, "ffn_dim": 32},
    )
    return randomised(MoshiForConditionalGeneration(config))


class Files:
    """What lies beside the weights: an extractor and a tokenizer, but no processor of its own."""

    def save_pretrained(self, folder: Any) -> None:
        EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(folder)
        tokenizer().save_pretrained(folder)


BUILDS = {"MoshiForConditionalGeneration": TinyAudio(build, Files)}
