from __future__ import annotations

from typing import Any

import torch
from transformers import (
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
    PreTrainedModel,
)

from tiny_audio.parts import VOCABULARY, TinyAudio, randomised, tokenizer

CODEBOOKS, CODES = 3, 16


def build(depth: int) -> PreTrainedModel:
    config = KyutaiSpeechToTextConfig(
        vocab_size=VOCABULARY,
        num_codebooks=CODEBOOKS,
        codebook_vocab_size=CODES + 1,
        audio_bos_token_id=CODES,
        audio_pad_token_id=VOCABULARY + CODEBOOKS * (CODES + 1),
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=depth,
        num_attention_heads=4,
        sliding_window=64,  # its cache forgets what is further back, its forward pass does not
        pad_token_id=0,
        bos_token_id=1,
        codec_config={
            "model_type": "mimi",
            "hidden_size": 16,
            "num_filters": 2,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 16,
            "codebook_size": CODES,
            "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8,
            "num_quantizers": CODEBOOKS,
            "num_semantic_quantizers": 1,
            "upsample_groups": 16,
        },
    )
    model = KyutaiSpeechToTextForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.codec_model.named_buffers():
        if name.endswith("embed_sum"):  # the codebooks, which are zero until they are trained
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return randomised(model)


def processor() -> Any:
    extractor = KyutaiSpeechToTextFeatureExtractor(audio_delay_seconds=0.5)
    return KyutaiSpeechToTextProcessor(extractor, tokenizer())


BUILDS = {"KyutaiSpeechToTextForConditionalGeneration": TinyAudio(build, processor)}
