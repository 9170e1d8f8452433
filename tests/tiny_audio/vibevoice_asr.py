from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
    VibeVoiceAsrProcessor,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, template, text_fields, tokenizer

AUDIO, BEGIN, END = "<|box_start|>", "<|object_ref_start|>", "<|object_ref_end|>"
SECONDS = "<|AUDIO_DURATION|>"
RATIOS = (2, 2, 4, 5, 5, 8)
"""The real ones: the processor counts on 3,200 samples a frame."""


def build(depth: int) -> PreTrainedModel:
    tokenizer_config = {
        "model_type": "vibevoice_acoustic_tokenizer_encoder",
        "num_filters": 1,
        "kernel_size": 3,
        "downsampling_ratios": RATIOS,
        "depths": (1, 1, 1, 1, 1, 1, 1),
        "ffn_expansion": 2,
        "layer_scale_init_value": 0.5,
    }
    config = VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=tokenizer_config | {"hidden_size": 8},
        semantic_tokenizer_encoder_config=tokenizer_config | {"hidden_size": 12},
        text_config={
            "model_type": "qwen2",
            **text_fields(depth, use_sliding_window=True, sliding_window=24, layer_types=alternating(depth)),
        },
        audio_token_id=5,
        audio_bos_token_id=6,
        audio_eos_token_id=7,
        acoustic_tokenizer_chunk_size=12_800,
    )
    return randomised(VibeVoiceAsrForConditionalGeneration(config))


def processor() -> Any:
    return VibeVoiceAsrProcessor(
        VibeVoiceAcousticTokenizerFeatureExtractor(),
        tokenizer(AUDIO, BEGIN, END),
        chat_template=template(f"{BEGIN}{AUDIO}{END} {SECONDS} seconds"),
    )


BUILDS = {"VibeVoiceAsrForConditionalGeneration": TinyAudio(build, processor)}
