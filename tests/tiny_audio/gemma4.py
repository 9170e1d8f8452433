from __future__ import annotations

from typing import Any

from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    PreTrainedModel,
)

from tiny_audio.parts import ProcessorFiles, TinyAudio, randomised, template, text_fields, tokenizer

AUDIO = "<|audio|>"
DEPTH = 9
SHARED = 4
NAMES = {
    "audio_token": AUDIO,
    "boa_token": "<|boa|>",
    "eoa_token": "<|eoa|>",
    "image_token": "<|image|>",
    "boi_token": "<|boi|>",
    "eoi_token": "<|eoi|>",
}
TOKENS = {
    "audio_token_id": 5,
    "boa_token_id": 6,
    "eoa_token_index": 7,
    "image_token_id": 8,
    "boi_token_id": 9,
    "eoi_token_id": 10,
    "video_token_id": 11,
}


def kinds(depth: int) -> list[str]:
    """Layers 1, 2 and 7 are global, and the last one, as the class wants it; from 5 on they read 2 and 4."""
    return ["full_attention" if layer in (1, 2, 7, depth - 1) else "sliding_attention" for layer in range(depth)]


def decoder(depth: int) -> dict[str, Any]:
    """Fields of every Gemma 4 decoder; global layers have wider heads."""
    return text_fields(
        depth,
        head_dim=8,
        global_head_dim=16,
        sliding_window=24,
        layer_types=kinds(depth),
        num_kv_shared_layers=SHARED,
        use_double_wide_mlp=True,
        final_logit_softcapping=30.0,
        eos_token_id=None,
    )


def build(depth: int) -> PreTrainedModel:
    config = Gemma4Config(
        text_config=decoder(depth) | {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 300},
        audio_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "subsampling_conv_channels": [32, 4],
            "output_proj_dims": 16,
        },
        vision_config=None,
        **TOKENS,
    )
    return randomised(Gemma4ForConditionalGeneration(config))


def processor() -> Any:
    """Its files: the class cannot be made without image libraries, which Shoal does without."""
    return ProcessorFiles(
        "Gemma4Processor",
        (tokenizer(*NAMES.values(), "<|video|>", **NAMES), Gemma4AudioFeatureExtractor(feature_size=32)),
        template(AUDIO),
        seeing={"image_processor_type": "Gemma4ImageProcessor"},
    )


BUILDS = {"Gemma4ForConditionalGeneration": TinyAudio(build, processor, depth=DEPTH, float_encoder=True)}
