"""Voxtral: a Whisper encoder on windows of 30 s, a two-layer projector, a Llama decoder, a Mistral tokenizer."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WINDOW_SECONDS = 30
WINDOW_FRAMES = 3000


class Voxtral(AudioLLM):
    """`VoxtralForConditionalGeneration`."""

    name = "voxtral"
    classes = ("VoxtralForConditionalGeneration",)
    limits = "asked in words, as in a chat, not in its transcription mode"

    def request(
        self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], instruction: str
    ) -> dict[str, Tensor]:
        """See `AudioLLM.request`; its processor takes audio in conversations only, as files.

        Without mistral-common its tokenizer is one that knows no conversations: then the same is put together here.
        """
        rate = self.sampling_rate(processor)
        if hasattr(processor.tokenizer, "mode"):
            return dict(processor.apply_chat_template([[_turn(clip, rate, instruction)] for clip in clips]))
        return _assembled(model, processor, clips, instruction, rate)


def _turn(clip: Samples, rate: int, instruction: str) -> dict[str, Any]:
    audio = {"data": b64encode(_wav(clip, rate)).decode(), "format": "wav"}
    content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": instruction}]
    return {"role": "user", "content": content}


def _wav(clip: Samples, rate: int) -> bytes:
    """A WAV file with the very samples."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, clip, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _assembled(
    model: PreTrainedModel, processor: Any, clips: Sequence[Samples], instruction: str, rate: int
) -> dict[str, Tensor]:
    """`<s>[INST][BEGIN_AUDIO][AUDIO]…instruction[/INST]`, and the features of windows (W, mel, 3000)."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    windows = [_windows(processor.feature_extractor, clip, rate) for clip in clips]
    tokenizer, audio = processor.tokenizer, model.config.audio_config
    slots = audio.max_source_positions * audio.hidden_size // audio.intermediate_size
    *begin, end, pad = tokenizer.convert_tokens_to_ids(["<s>", "[INST]", "[BEGIN_AUDIO]", "[/INST]", "<pad>"])
    asked = [*tokenizer(instruction, add_special_tokens=False)["input_ids"], end]
    rows = [[*begin, *[model.config.audio_token_id] * slots * len(clip_windows), *asked] for clip_windows in windows]
    ids = [torch.tensor(row) for row in rows]
    options: dict[str, Any] = {"batch_first": True, "padding_side": "left"}
    return {
        "input_ids": pad_sequence(ids, padding_value=pad, **options),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], **options),
        "input_features": torch.cat(windows),
    }


def _windows(extractor: Any, clip: Samples, rate: int) -> Tensor:
    """(W, mel, 3000): the features of a clip, padded to whole windows."""
    padding = {"padding": True, "truncation": False, "pad_to_multiple_of": WINDOW_SECONDS * rate}
    features: Tensor = extractor(clip, sampling_rate=rate, return_tensors="pt", **padding)["input_features"]
    return features.reshape(features.shape[1], -1, WINDOW_FRAMES).transpose(0, 1)


FAMILY = Voxtral()
