from __future__ import annotations

from typing import Any

from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    PreTrainedModel,
    WhisperFeatureExtractor,
)

from tiny_audio.parts import TinyAudio, alternating, randomised, template, text_fields, tokenizer

AUDIO, BEGIN, END = "<sound>", "<|sound_bos|>", "<|sound_eos|>"


def config_fields(depth: int) -> dict[str, Any]:
    return {
        "audio_config": {
            "model_type": "audioflamingo3_encoder",
            "hidden_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_mel_bins": 80,
            "max_source_positions": 100,
        },
        "text_config": {
            "model_type": "qwen2",
            **text_fields(depth, use_sliding_window=True, sliding_window=24, layer_types=alternating(depth)),
        },
        "audio_token_id": 5,
    }


def audio_flamingo(depth: int) -> PreTrainedModel:
    return randomised(AudioFlamingo3ForConditionalGeneration(AudioFlamingo3Config(**config_fields(depth))))


def music_flamingo(depth: int) -> PreTrainedModel:
    config = MusicFlamingoConfig(**config_fields(depth), audio_bos_token_id=6, audio_eos_token_id=7)
    return randomised(MusicFlamingoForConditionalGeneration(config))


def extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=80, chunk_length=2, return_attention_mask=True)


def audio_processor() -> Any:
    return AudioFlamingo3Processor(extractor(), tokenizer(AUDIO), chat_template=template(AUDIO))


def music_processor() -> Any:
    return MusicFlamingoProcessor(extractor(), tokenizer(AUDIO, BEGIN, END), chat_template=template(AUDIO))


BUILDS = {
    "AudioFlamingo3ForConditionalGeneration": TinyAudio(audio_flamingo, audio_processor),
    "MusicFlamingoForConditionalGeneration": TinyAudio(music_flamingo, music_processor),
}
