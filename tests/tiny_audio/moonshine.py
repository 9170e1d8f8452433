from __future__ import annotations

from typing import Any

from transformers import (
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    MoonshineStreamingProcessor,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from tiny_audio.parts import VOCABULARY, TinyAudio, randomised, tokenizer

SIZE = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


def moonshine(depth: int) -> PreTrainedModel:
    config = MoonshineConfig(
        **SIZE,
        hidden_size=16,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=depth,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
    )
    return randomised(MoonshineForConditionalGeneration(config))


def streaming(depth: int) -> PreTrainedModel:
    encoder = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "sliding_windows": [[16, 4], [16, 0], [16, 4]],
    }
    config = MoonshineStreamingConfig(**SIZE, hidden_size=24, num_hidden_layers=depth, **HEADS, encoder_config=encoder)
    return randomised(MoonshineStreamingForConditionalGeneration(config))


def extractor() -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


def processor() -> Any:
    return Wav2Vec2Processor(extractor(), tokenizer())


def streaming_processor() -> Any:
    return MoonshineStreamingProcessor(extractor(), tokenizer())


BUILDS = {
    "MoonshineForConditionalGeneration": TinyAudio(moonshine, processor),
    "MoonshineStreamingForConditionalGeneration": TinyAudio(streaming, streaming_processor),
}
