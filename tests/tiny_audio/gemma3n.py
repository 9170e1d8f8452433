from __future__ import annotations

from typing import Any

from transformers import (
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    PreTrainedModel,
)

from tiny_audio.parts import ProcessorFiles, TinyAudio, randomised, template, text_fields, tokenizer

AUDIO = "<audio_soft_token>"
DEPTH = 9
SOFT_TOKENS = 10
NAMES = {
    "audio_token": AUDIO,
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}


def decoder(depth: int) -> dict[str, Any]:
    """Layers 1, 2, 7 and the last are global; from 5 on they read 2 and 4; sizes and sparsity differ by layer."""
    return text_fields(
        depth,
        head_dim=8,
        intermediate_size=[40 + 8 * (layer % 3) for layer in range(depth)],
        activation_sparsity_pattern=[0.9 * (layer % 4 == 1) for layer in range(depth)],
        sliding_window=24,
        layer_types=[
            "full_attention" if layer in (1, 2, 7, depth - 1) else "sliding_attention" for layer in range(depth)
        ],
        num_kv_shared_layers=4,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=280,
        laurel_rank=4,
        eos_token_id=None,
    )


def build(depth: int) -> PreTrainedModel:
    config = Gemma3nConfig(
        text_config=decoder(depth),
        audio_config={
            "vocab_size": 16,
            "vocab_offset": 284,
            "input_feat_size": 16,
            "hidden_size": 16,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": [4, 4],
        },
        vision_config={"hidden_size": 16, "vocab_size": 4, "vocab_offset": 280},
        audio_soft_tokens_per_image=SOFT_TOKENS,
        audio_token_id=5,
        boa_token_id=6,
        eoa_token_id=7,
        image_token_id=8,
        boi_token_id=9,
        eoi_token_id=10,
    )
    return randomised(Gemma3nForConditionalGeneration(config))


def processor() -> Any:
    """Its files: the class cannot be made without image libraries, which Shoal does without."""
    return ProcessorFiles(
        "Gemma3nProcessor",
        (tokenizer(*NAMES.values(), **NAMES), Gemma3nAudioFeatureExtractor(feature_size=16)),
        template(AUDIO),
        seeing={"image_processor_type": "SiglipImageProcessor"},
        settings={"audio_seq_length": SOFT_TOKENS, "image_seq_length": 4},
    )


NEEDS_TIMM = {"Gemma3nForConditionalGeneration": TinyAudio(build, processor, depth=DEPTH, float_encoder=True)}
"""The class cannot be made without timm, for its vision tower: see `test_gemma3n.py`."""
BUILDS: dict[str, TinyAudio] = {}
