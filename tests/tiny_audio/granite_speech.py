from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusConfig,
    GraniteSpeechPlusForConditionalGeneration,
    GraniteSpeechProcessor,
    PreTrainedModel,
)
from transformers.audio_utils import mel_filter_bank
from transformers.models.granite_speech import feature_extraction_granite_speech as extraction

from tiny_audio.parts import TinyAudio, randomised, text_fields, tokenizer

AUDIO = "<|audio|>"
TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def config_fields(depth: int, exported: int) -> dict[str, Any]:
    return {
        "encoder_config": {
            "input_dim": 160,
            "num_layers": 2,
            "hidden_dim": 16,
            "num_heads": 2,
            "feedforward_mult": 2,
            "output_dim": 10,
            "context_size": 20,
            "max_pos_emb": 32,
        },
        "projector_config": {
            "model_type": "blip_2_qformer",
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "encoder_hidden_size": 16 * (exported + 1),
            "cross_attention_frequency": 1,
        },
        "text_config": {
            "model_type": "granite",
            **text_fields(
                depth,
                embedding_multiplier=3.0,
                logits_scaling=2.0,
                residual_multiplier=0.5,
                attention_multiplier=0.3,
            ),
        },
        "audio_token_index": 5,
        "has_lora_adapter": False,
    }


def speech(depth: int) -> PreTrainedModel:
    return randomised(GraniteSpeechForConditionalGeneration(GraniteSpeechConfig(**config_fields(depth, 0))))


def plus(depth: int) -> PreTrainedModel:
    fields = config_fields(depth, 1)
    fields["encoder_config"]["cat_hidden_layers"] = [1]
    return randomised(GraniteSpeechPlusForConditionalGeneration(GraniteSpeechPlusConfig(**fields)))


class MelSpectrogram(torch.nn.Module):
    """Stands in for torchaudio's, of which PyPI has no build for a PyTorch without CUDA."""

    def __init__(self, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int) -> None:
        super().__init__()
        self.lengths = (n_fft, hop_length, win_length)
        filters = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, sample_rate / 2, sample_rate)
        self.filters = torch.tensor(filters, dtype=torch.float32)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(self.lengths[2])
        power = torch.stft(audio, *self.lengths, window=window, return_complex=True).abs() ** 2
        return self.filters.T @ power


def stand_in() -> None:
    """Let the stock feature extractor run without torchaudio."""
    if extraction.is_torchaudio_available():
        return
    extraction.torchaudio = SimpleNamespace(transforms=SimpleNamespace(MelSpectrogram=MelSpectrogram))
    extraction.requires_backends = lambda *_: None


def processor() -> Any:
    stand_in()
    return GraniteSpeechProcessor(extraction.GraniteSpeechFeatureExtractor(), tokenizer(AUDIO), chat_template=TEMPLATE)


MEL = "torchaudio's mel transform"
BUILDS = {
    "GraniteSpeechForConditionalGeneration": TinyAudio(speech, processor, stand_in=MEL),
    "GraniteSpeechPlusForConditionalGeneration": TinyAudio(plus, processor, stand_in=MEL),
}
