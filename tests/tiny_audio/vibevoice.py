from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceConfig,
    VibeVoiceForConditionalGeneration,
    VibeVoiceProcessor,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, text_fields, tokenizer

BEGIN, END, AUDIO = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
TEMPLATE = (
    " Transform the text into speech.\n Text input:\n"
    "{% for message in messages %} Speaker {{ message['role'] }}:"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ '\\n' }}{% endfor %} Speech output:\n" + BEGIN
)
CODEC = {
    "num_filters": 1,
    "kernel_size": 3,
    "downsampling_ratios": (2, 2, 4, 5, 5, 8),
    "depths": (1, 1, 1, 1, 1, 1, 1),
    "ffn_expansion": 2,
    "layer_scale_init_value": 0.5,
}


def build(depth: int) -> PreTrainedModel:
    config = VibeVoiceConfig(
        audio_config={"model_type": "vibevoice_acoustic_tokenizer", "hidden_size": 8, **CODEC},
        semantic_model_config={
            "model_type": "vibevoice_acoustic_tokenizer_encoder",
            "hidden_size": 12,
            **CODEC,
        },
        text_config={
            "model_type": "qwen2",
            **text_fields(depth, use_sliding_window=True, sliding_window=24, layer_types=alternating(depth)),
        },
        diffusion_head_config={
            "num_hidden_layers": 1,
            "intermediate_size": 24,
            "frequency_embedding_size": 16,
        },
        pad_token_id=0,
        eos_token_id=2,
        audio_bos_token_id=5,
        audio_eos_token_id=6,
        audio_token_id=7,
    )
    return randomised(VibeVoiceForConditionalGeneration(config))


def processor() -> Any:
    return VibeVoiceProcessor(
        VibeVoiceAcousticTokenizerFeatureExtractor(), tokenizer(BEGIN, END, AUDIO), chat_template=TEMPLATE
    )


BUILDS = {"VibeVoiceForConditionalGeneration": TinyAudio(build, processor)}
