"""Audio LLMs whose processor cuts a clip into windows of fixed length, each of which the encoder sees whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import AudioLLM, Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def one_window(processor: Any) -> float:
    """Seconds in the window of a Whisper-like feature extractor, for models that hear one window and no more."""
    extractor = processor.feature_extractor
    return float(extractor.n_samples / extractor.sampling_rate)


class Windowed(AudioLLM):
    """Its encoder has one position embedding, or one mask, for a whole window: the last one is padded to it."""

    def request(
        self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], instruction: str
    ) -> dict[str, Tensor]:
        """See `AudioLLM.request`; a padding asked for here would reach the audio and shorten the window."""
        del model
        text = self.prompt(processor, instruction)
        return dict(processor(text=[text] * len(clips), audio=list(clips)))
