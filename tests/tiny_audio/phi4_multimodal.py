from __future__ import annotations

from transformers import (
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    PreTrainedModel,
)

from tiny_audio.parts import ProcessorFiles, TinyAudio, randomised, template, text_fields, tokenizer

AUDIO, IMAGE = "<|endoftext11|>", "<|endoftext10|>"


def build(depth: int) -> PreTrainedModel:
    config = Phi4MultimodalConfig(
        audio_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_blocks": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 16,
            "depthwise_separable_out_channel": 16,
            "input_size": 80,
            "nemo_conv_channels": 8,
            "audio_token_id": 5,
            "bias_max_distance": 20,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "crop_size": 28,
            "image_token_id": 6,
        },
        **text_fields(
            depth,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
                "short_factor": [1.0, 1.1],
                "long_factor": [1.0, 4.0],
            },
        ),
    )
    return randomised(Phi4MultimodalForCausalLM(config))


def processor() -> ProcessorFiles:
    """Its files: the class cannot be made without image libraries, which Shoal does without."""
    return ProcessorFiles(
        "Phi4MultimodalProcessor",
        (tokenizer(AUDIO, IMAGE, audio_token=AUDIO, image_token=IMAGE), Phi4MultimodalFeatureExtractor()),
        template(AUDIO),
        seeing={"image_processor_type": "Phi4MultimodalImageProcessor"},
    )


BUILDS = {"Phi4MultimodalForCausalLM": TinyAudio(build, processor)}
