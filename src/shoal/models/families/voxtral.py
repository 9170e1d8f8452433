"""Voxtral: a Whisper encoder on windows of 30 s, a two-layer projector, a Llama decoder, a Mistral tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WINDOW_SECONDS = 30
WINDOW_FRAMES = 3000


class Voxtral(AudioLLM):
    """`VoxtralForConditionalGeneration`."""

    name = "voxtral"
    classes = ("VoxtralForConditionalGeneration",)
    limits = (
        "transcribes in its transcription mode where a row names its language (lang, or --lang); else it is asked in "
        "words, as in a chat"
    )

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Any with two letters, in the transcription mode."""
        from transformers.models.whisper.tokenization_whisper import LANGUAGES

        return [code for code in LANGUAGES if len(code) == 2] if transcribe else ()

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """What mistral-common writes, with or without that library, and the features of windows (W, mel, 3000).

        `<s>[INST][BEGIN_AUDIO][AUDIO]…`, then `instruction[/INST]` or, to transcribe, `[/INST]lang:de[TRANSCRIBE]`.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        windows = [_windows(processor.feature_extractor, clip, self.sampling_rate(processor)) for clip in clips]
        audio = model.config.audio_config
        slots = audio.max_source_positions * audio.hidden_size // audio.intermediate_size
        *begin, pad = processor.tokenizer.convert_tokens_to_ids(["<s>", "[INST]", "[BEGIN_AUDIO]", "<pad>"])
        audio_ids = [[model.config.audio_token_id] * slots * len(parts) for parts in windows]
        asked = [_asked(processor.tokenizer, question, language) for language in question.spoken(len(clips))]
        ids = [torch.tensor([*begin, *slot, *words]) for slot, words in zip(audio_ids, asked, strict=True)]
        options: dict[str, Any] = {"batch_first": True, "padding_side": "left"}
        return {
            "input_ids": pad_sequence(ids, padding_value=pad, **options),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], **options),
            "input_features": torch.cat(windows),
        }


def _asked(tokenizer: Any, question: Question, language: str | None) -> list[int]:
    """The tokens after the audio."""
    end, transcribe = tokenizer.convert_tokens_to_ids(["[/INST]", "[TRANSCRIBE]"])
    words = question.instruction if language is None else f"lang:{language}"
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    return [*ids, end] if language is None else [end, *ids, transcribe]


def _windows(extractor: Any, clip: Samples, rate: int) -> Tensor:
    """(W, mel, 3000): the features of a clip, padded to whole windows."""
    padding = {"padding": True, "truncation": False, "pad_to_multiple_of": WINDOW_SECONDS * rate}
    features: Tensor = extractor(clip, sampling_rate=rate, return_tensors="pt", **padding)["input_features"]
    return features.reshape(features.shape[1], -1, WINDOW_FRAMES).transpose(0, 1)


FAMILY = Voxtral()
