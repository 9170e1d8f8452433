from __future__ import annotations

from typing import Any

from tokenizers import pre_tokenizers
from transformers import (
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from tiny_audio.parts import VOCABULARY, TinyAudio, randomised

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|hi|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


def build(depth: int) -> PreTrainedModel:
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=80,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=depth,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=96,
        decoder_start_token_id=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = randomised(WhisperForConditionalGeneration(config))
    settings: Any = model.generation_config
    settings._from_model_config = False  # else the fields below do not survive saving and loading
    settings.lang_to_id = {"<|en|>": 2, "<|hi|>": 3}
    settings.task_to_id = {"translate": 4, "transcribe": 5}
    settings.no_timestamps_token_id = 8
    settings.is_multilingual = True
    settings.alignment_heads = [[1, 0], [2, 1], [depth - 1, 0]]
    settings.suppress_tokens = []
    settings.begin_suppress_tokens = [0]
    settings.max_length = 96
    return model


def processor() -> Any:
    vocab = {token: index for index, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[], extra_special_tokens=list(SPECIAL[1:]))
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=2), tokenizer)


BUILDS = {"WhisperForConditionalGeneration": TinyAudio(build, processor)}
