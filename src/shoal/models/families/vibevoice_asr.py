"""VibeVoice-ASR: an acoustic and a semantic tokenizer side by side, a projector for both, a Qwen2 decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import Inputs, Question, Samples
from shoal.models.families.transcriber import TranscriptionFamily

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class VibeVoiceAsr(TranscriptionFamily):
    """`VibeVoiceAsrForConditionalGeneration`."""

    name = "vibevoice_asr"
    classes = ("VibeVoiceAsrForConditionalGeneration",)
    limits = "takes no instruction; run without the noise that it adds to its audio by default"

    def encoder(self, model: PreTrainedModel) -> nn.Module | None:
        """Both tokenizers."""
        from torch import nn

        inner: Any = model.model
        return nn.ModuleList([inner.acoustic_tokenizer_encoder, inner.semantic_tokenizer_encoder])

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """See `AudioLLM.request`; the noise is off, or no two passes over a clip would agree."""
        import torch

        inputs = super().request(model, processor, clips, question)
        # A tensor, because a verification stores its inputs as tensors.
        return inputs | {"sample": torch.tensor(False)}


FAMILY = VibeVoiceAsr()
