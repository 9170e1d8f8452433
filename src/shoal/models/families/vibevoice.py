"""VibeVoice: an LLM whose states guide a diffusion head, from which the next frame of speech comes and goes back in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families.audio_llm import Inputs, Question, Samples
from shoal.models.families.speech_generator import SpeechGenerator

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class VibeVoice(SpeechGenerator):
    """`VibeVoiceForConditionalGeneration`: the language model is measured and pruned, the diffusion head stays."""

    name = "vibevoice"
    classes = ("VibeVoiceForConditionalGeneration",)
    projector_names = ("multi_modal_projector",)
    limits = "measured on the words of a clip followed by its latents without noise; the diffusion head stays whole"

    def prompt(self, processor: Any, instruction: str) -> str:
        """The script of one speaker, and the speech."""
        words = [{"type": "text", "text": self.mark(processor)}]
        script = str(
            processor.apply_chat_template([{"role": "0", "content": words}], tokenize=False, add_generation_prompt=True)
        )
        begins = "" if script.rstrip().endswith(processor.audio_bos_token) else processor.audio_bos_token
        return f"{script}{begins}{processor.audio_token}{processor.audio_eos_token}"

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """Samples for the acoustic encoder inside the model, which is kept from adding noise."""
        import torch

        return super().request(model, processor, clips, question) | {"sample": torch.tensor(False)}


FAMILY = VibeVoice()
