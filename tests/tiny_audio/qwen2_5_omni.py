from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tiny_audio.parts import (
    ProcessorFiles,
    TinyAudio,
    alternating,
    randomised,
    template,
    text_fields,
    tokenizer,
)

AUDIO = "<|AUDIO|>"
ROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10_000.0}


def thinker(depth: int) -> dict[str, Any]:
    return {
        "audio_config": {
            "num_mel_bins": 80,
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 100,
            "n_window": 20,
            "output_dim": 32,
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        "text_config": text_fields(
            depth,
            use_sliding_window=True,
            sliding_window=24,
            layer_types=alternating(depth),
            rope_parameters=dict(ROPE),
            tie_word_embeddings=False,
        ),
        "audio_token_index": 5,
        "audio_start_token_id": 6,
        "audio_end_token_id": 7,
        "image_token_index": 8,
        "video_token_index": 9,
        "vision_start_token_id": 10,
        "vision_end_token_id": 11,
    }


def build_thinker(depth: int) -> PreTrainedModel:
    return randomised(Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**thinker(depth))))


def build(depth: int) -> PreTrainedModel:
    """The whole model: the thinker, a talker and what makes a wave of its codes."""
    config = Qwen2_5OmniConfig(
        thinker_config=thinker(depth),
        talker_config={
            **text_fields(2, embedding_size=32, head_dim=8, vocab_size=40),
            "rope_parameters": dict(ROPE),
            "tts_text_start_token_id": 12,
            "tts_text_end_token_id": 13,
            "tts_text_pad_token_id": 14,
            "tts_codec_pad_token_id": 36,
            "tts_codec_start_token_id": 37,
            "tts_codec_end_token_id": 38,
            "tts_codec_mask_token_id": 39,
        },
        token2wav_config={
            "dit_config": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "head_dim": 8,
                "emb_dim": 8,
                "num_embeds": 40,
                "mel_dim": 8,
                "enc_emb_dim": 8,
                "enc_dim": 8,
                "enc_channels": [8, 8, 8, 8, 24],
                "enc_attention_channels": 4,
                "enc_res2net_scale": 2,
                "enc_se_channels": 4,
            },
            # As far upsampled as by default, in two layers of one block: each block computes the same filters anew.
            "bigvgan_config": {
                "mel_dim": 8,
                "upsample_initial_channel": 64,
                "resblock_kernel_sizes": [3],
                "resblock_dilation_sizes": [[1, 3, 5]],
                "upsample_rates": [15, 16],
                "upsample_kernel_sizes": [31, 32],
            },
        },
    )
    model = Qwen2_5OmniForConditionalGeneration(config)
    model.thinker.generation_config.eos_token_id = None
    return randomised(model)


def voices(folder: Path) -> None:
    """The file of speakers without which the class does not load."""
    voice = {"bos_token": 3, "cond": torch.zeros(1, 8), "ref_mel": torch.zeros(1, 30, 8)}
    torch.save({"Chelsie": voice}, folder / "spk_dict.pt")


def processor(stock: str = "Qwen2_5OmniProcessor", *, hop_length: int = 160) -> Any:
    """Its files: the class cannot be made without image libraries, which Shoal does without."""
    names = {
        "audio_token": AUDIO,
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
    }
    return ProcessorFiles(
        stock,
        (
            tokenizer(*names.values(), **names),
            WhisperFeatureExtractor(feature_size=80, chunk_length=2, hop_length=hop_length, return_attention_mask=True),
        ),
        template(f"<|audio_bos|>{AUDIO}<|audio_eos|>"),
        seeing={"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2},
    )


BUILDS = {
    "Qwen2_5OmniThinkerForConditionalGeneration": TinyAudio(build_thinker, processor),
    "Qwen2_5OmniForConditionalGeneration": TinyAudio(build, processor, files=voices),
}
