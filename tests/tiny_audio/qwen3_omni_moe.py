from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from tiny_audio import qwen2_5_omni
from tiny_audio.parts import TinyAudio, randomised, text_fields

ROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "interleaved": True, "rope_theta": 10_000.0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def thinker(depth: int) -> dict[str, Any]:
    """Images are added behind the first layer; layers 0, 2 and 4 would be dense, and 3 is by name."""
    return {
        "audio_config": {
            "num_mel_bins": 80,
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 100,
            "n_window": 50,
            "n_window_infer": 100,
            "output_dim": 32,
            "downsample_hidden_size": 4,
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [1],
        },
        "text_config": {
            **text_fields(depth, rope_parameters=dict(ROPE), head_dim=8),
            **EXPERTS,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
        },
        "audio_token_id": 5,
        "audio_start_token_id": 6,
        "image_token_id": 8,
        "video_token_id": 9,
        "vision_start_token_id": 10,
    }


def build_thinker(depth: int) -> PreTrainedModel:
    return randomised(Qwen3OmniMoeThinkerForConditionalGeneration(Qwen3OmniMoeThinkerConfig(**thinker(depth))))


def build(depth: int) -> PreTrainedModel:
    """The whole model: the thinker, a talker that reads its fourth state, and what makes a wave of its codes."""
    small = {**text_fields(2, vocab_size=40, hidden_size=16, head_dim=4), "num_attention_heads": 4}
    config = Qwen3OmniMoeConfig(
        thinker_config=thinker(depth),
        talker_config={
            "accept_hidden_layer": 4,
            "thinker_hidden_size": 32,
            "num_code_groups": 4,
            "text_config": {
                **small,
                **EXPERTS,
                "rope_parameters": {**ROPE, "mrope_section": [1, 1, 0]},
                "shared_expert_intermediate_size": 16,
            },
            "code_predictor_config": {**small, "num_code_groups": 4},
            "speaker_id": {"ethan": 3},
            "spatial_merge_size": 2,
        },
        code2wav_config={
            "codebook_size": 40,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_quantizers": 4,
            "decoder_dim": 32,
        },
    )
    return randomised(Qwen3OmniMoeForConditionalGeneration(config))


def processor() -> Any:
    """Four times the frames, so that the short clips of tests fill a chunk: see the family's limits."""
    return qwen2_5_omni.processor("Qwen3OmniMoeProcessor", hop_length=40)


BUILDS = {
    "Qwen3OmniMoeThinkerForConditionalGeneration": TinyAudio(build_thinker, processor),
    "Qwen3OmniMoeForConditionalGeneration": TinyAudio(build, processor),
}
