"""Tiny random checkpoints of audio LLM classes (and two text controls), as their stock classes save them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

DEPTH = 6
REMOVED = (2, 3)
VOCABULARY = 120
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
AUDIO_TOKEN = 7
WHISPER = {"num_mel_bins": 16, "max_source_positions": 20}
OLD_NAMES = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
NEW_NAMES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@dataclass(frozen=True)
class Case:
    """A class: how to make its config, and where its decoder layers lie in the model.

    `layers` is written down here and not found, so that it depends on no tool that is compared.
    """

    class_name: str
    config: Callable[[], PreTrainedConfig]
    layers: str = "model.language_model.layers"


def sources() -> tuple[Case, ...]:
    """The audio LLMs, then the controls."""
    return (
        Case("Qwen2AudioForConditionalGeneration", _qwen2_audio),
        Case("VoxtralForConditionalGeneration", _voxtral),
        Case("Qwen3ASRForConditionalGeneration", _qwen3_asr),
        Case("GraniteSpeechForConditionalGeneration", _granite_speech),
        Case("AudioFlamingo3ForConditionalGeneration", _audio_flamingo),
        Case("Phi4MultimodalForCausalLM", _phi4, layers="model.layers"),
        Case("LlamaForCausalLM", lambda: transformers.LlamaConfig(**TEXT), layers="model.layers"),
        Case("Qwen2ForCausalLM", lambda: transformers.Qwen2Config(**TEXT), layers="model.layers"),
    )


def save_source(case: Case, folder: Path) -> None:
    """A float32 checkpoint whose layers all matter, with a tokenizer beside it."""
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, case.class_name)(case.config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    save_tokenizer(folder, VOCABULARY)


def save_with_names_in_memory(case: Case, source: Path, folder: Path) -> None:
    """The checkpoint again, its keys not turned back into the older names that most classes keep on disk."""
    model = getattr(transformers, case.class_name).from_pretrained(source)
    model.save_pretrained(folder, save_original_format=False)
    save_tokenizer(folder, VOCABULARY)


def save_tokenizer(folder: Path, size: int) -> None:
    """As many words as the model has rows, so that no tool has a reason to resize anything."""
    words = {f"w{number}": number for number in range(size)}
    made = Tokenizer(models.WordLevel(words, unk_token="w3"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "w0", "bos_token": "w1", "eos_token": "w2", "unk_token": "w3"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def _qwen2_audio() -> PreTrainedConfig:
    return transformers.Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **TEXT},
        audio_config={"model_type": "qwen2_audio_encoder", **OLD_NAMES, **WHISPER},
        audio_token_index=AUDIO_TOKEN,
    )


def _voxtral() -> PreTrainedConfig:
    return transformers.VoxtralConfig(
        text_config={"model_type": "llama", **TEXT, "head_dim": 8},
        audio_config={"model_type": "voxtral_encoder", **NEW_NAMES, **WHISPER, "intermediate_size": 64},
        audio_token_id=AUDIO_TOKEN,
    )


def _qwen3_asr() -> PreTrainedConfig:
    encoder = {**OLD_NAMES, "num_mel_bins": 16, "output_dim": 32, "downsample_hidden_size": 8}
    return transformers.Qwen3ASRConfig(
        text_config={"model_type": "qwen3", **TEXT, "head_dim": 8},
        audio_config={"model_type": "qwen3_asr_encoder", **encoder},
        audio_token_id=AUDIO_TOKEN,
        timestamp_token_id=8,
        pad_token_id=0,
        eos_token_id=2,
        tie_word_embeddings=False,
    )


def _granite_speech() -> PreTrainedConfig:
    encoder = {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "dim_head": 8, "input_dim": 16}
    projector = {
        "hidden_size": 32,
        "encoder_hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return transformers.GraniteSpeechConfig(
        text_config={"model_type": "granite", **TEXT},
        encoder_config={"model_type": "granite_speech_encoder", **encoder, "output_dim": 10},
        projector_config={"model_type": "blip_2_qformer", **projector},
        audio_token_index=AUDIO_TOKEN,
        has_lora_adapter=False,
        tie_word_embeddings=False,
    )


def _audio_flamingo() -> PreTrainedConfig:
    return transformers.AudioFlamingo3Config(
        text_config={"model_type": "qwen2", **TEXT},
        audio_config={"model_type": "audioflamingo3_encoder", **NEW_NAMES, **WHISPER},
        audio_token_id=AUDIO_TOKEN,
    )


def _phi4() -> PreTrainedConfig:
    vision = {**NEW_NAMES, "image_size": 28, "crop_size": 28, "image_token_id": 9}
    audio = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_blocks": 2,
        "num_attention_heads": 2,
        "ext_pw_out_channel": 16,
        "depthwise_separable_out_channel": 16,
        "nemo_conv_channels": 16,
        "input_size": 16,
        "audio_token_id": AUDIO_TOKEN,
    }
    return transformers.Phi4MultimodalConfig(**TEXT, vision_config=vision, audio_config=audio)
