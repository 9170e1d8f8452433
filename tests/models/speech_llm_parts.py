"""Tiny random encoders, decoders and tokenizers that make a SpeechLLM."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from shoal.models.speech_llm import SpeechLLM, SpeechLLMConfig, SpeechLLMProcessor

ENCODERS = ("whisper", "wavlm", "wavlm-group", "hubert", "wav2vec2", "wav2vec2-adapter")
DECODERS = ("llama", "qwen2", "gemma3_text")
PROJECTORS: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "stack": 3},
    "mlp": {
        "type": "mlp",
        "stack": 5,
        "hidden_size": 24,
        "input_norm": True,
        "output_norm": "rms",
        "output_scale": 0.13,
        "gain": True,
    },
    "conv": {"type": "conv", "stack": 2, "kernel": 4, "hidden_size": 24, "input_norm": True},
}
ALPHABET = "abcdefghijklmnopqrstuvwxyz' \n."


def encoder_config(name: str) -> PreTrainedConfig:
    if name == "whisper":
        # One-second windows, so that a clip of a few seconds spans several.
        return AutoConfig.for_model(
            "whisper",
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            num_mel_bins=80,
            max_source_positions=50,
        )
    kind, _, variant = name.partition("-")
    more = {"add_adapter": True, "num_adapter_layers": 2} if variant == "adapter" else {}
    return AutoConfig.for_model(
        kind,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        conv_bias=variant != "group",
        feat_extract_norm="group" if variant == "group" else "layer",
        do_stable_layer_norm=variant != "group",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        output_hidden_size=16,
        **more,
    )


def text_config(name: str, vocab_size: int, **more: Any) -> PreTrainedConfig:
    more = {"tie_word_embeddings": True, "num_hidden_layers": 4, **more}
    if name == "gemma3_text":
        more |= {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    return AutoConfig.for_model(
        name,
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        **more,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|pad|>", "<|im_end|>", "<|im_start|>", "<|unk|>"]
    vocab = {token: index for index, token in enumerate([*special, *ALPHABET])}
    backend = Tokenizer(models.BPE(vocab, [], unk_token="<|unk|>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        unk_token="<|unk|>",
        extra_special_tokens=["<|im_start|>"],
    )


def feature_extractor(name: str) -> Any:
    if name == "whisper":
        return WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    return Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)


def tiny(
    encoder: str = "whisper", decoder: str = "llama", projector: str = "mlp", window: str = "full", **text: Any
) -> tuple[SpeechLLM, SpeechLLMProcessor]:
    torch.manual_seed(0)
    words = tokenizer()
    config = SpeechLLMConfig(
        encoder_config=encoder_config(encoder),
        text_config=text_config(decoder, len(words), **text),
        projector=PROJECTORS[projector],
        response_style="lower",
        encoder_window=window,
    )
    processor = SpeechLLMProcessor.of(config, feature_extractor(encoder), words)
    return SpeechLLM(config).eval(), processor


def clips(*seconds: float, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [(0.1 * random.standard_normal(round(16_000 * length))).astype(np.float32) for length in seconds]
