from __future__ import annotations

from typing import Any

from transformers import (
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    PreTrainedModel,
)

from tiny_audio import gemma4
from tiny_audio.parts import ProcessorFiles, TinyAudio, randomised, template, tokenizer


def build(depth: int) -> PreTrainedModel:
    config = Gemma4UnifiedConfig(
        text_config=gemma4.decoder(depth) | {"use_bidirectional_attention": "vision"},
        audio_config={"audio_embed_dim": 640},
        vision_config={"patch_size": 2, "mm_embed_dim": 32, "mm_posemb_size": 8, "output_proj_dims": 32},
        **gemma4.TOKENS,
    )
    return randomised(Gemma4UnifiedForConditionalGeneration(config))


def processor() -> Any:
    """Its files: the class cannot be made without image libraries, which Shoal does without."""
    return ProcessorFiles(
        "Gemma4UnifiedProcessor",
        (
            tokenizer(*gemma4.NAMES.values(), "<|video|>", **gemma4.NAMES),
            Gemma4UnifiedAudioFeatureExtractor(),
        ),
        template(gemma4.AUDIO),
        seeing={"image_processor_type": "Gemma4UnifiedImageProcessor"},
    )


BUILDS = {"Gemma4UnifiedForConditionalGeneration": TinyAudio(build, processor, depth=gemma4.DEPTH)}
