from __future__ import annotations

from typing import Any

from transformers import (
    CsmConfig,
    CsmForConditionalGeneration,
    CsmProcessor,
    EncodecFeatureExtractor,
    PreTrainedModel,
)

from tiny_audio.parts import VOCABULARY, TinyAudio, randomised, text_fields, tokenizer

CODEBOOKS = 4
MIMI = {
    "model_type": "mimi",
    "sampling_rate": 24_000,
    "hidden_size": 16,
    "num_filters": 2,
    "num_residual_layers": 1,
    "codebook_size": 32,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": CODEBOOKS,
    "num_semantic_quantizers": 1,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "upsample_groups": 16,
}
TEMPLATE = (
    "{% for message in messages %}<|bos|>[{{ message['role'] }}]{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}<|eos|>{% endif %}"
    "{% endfor %}{% endfor %}"
)


def build(depth: int) -> PreTrainedModel:
    sizes = text_fields(depth, vocab_size=40, max_position_embeddings=512)
    config = CsmConfig(
        **sizes,
        text_vocab_size=VOCABULARY,
        num_codebooks=CODEBOOKS,
        codebook_pad_token_id=38,
        codebook_eos_token_id=0,
        audio_token_id=5,
        audio_eos_token_id=6,
        depth_decoder_config={
            **text_fields(2, vocab_size=40, hidden_size=16, num_attention_heads=2),
            "backbone_hidden_size": 32,
            "num_codebooks": CODEBOOKS,
            "max_position_embeddings": CODEBOOKS + 1,
        },
        codec_config=MIMI,
    )
    return randomised(CsmForConditionalGeneration(config))


def processor() -> Any:
    return CsmProcessor(
        EncodecFeatureExtractor(sampling_rate=24_000),
        tokenizer("<|AUDIO|>", "<|audio_eos|>"),
        chat_template=TEMPLATE,
    )


BUILDS = {"CsmForConditionalGeneration": TinyAudio(build, processor)}
