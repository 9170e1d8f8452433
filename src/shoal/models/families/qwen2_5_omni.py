"""Qwen2.5-Omni: a Whisper-like encoder, a Qwen2 thinker, and a talker that reads the thinker's last states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families import talker
from shoal.models.families.omni import Omni

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.data.clip import Clip, Row
    from shoal.models.batch import PreparedBatch
    from shoal.models.families.audio_llm import Samples
    from shoal.tasks import Task


class Qwen25Omni(Omni):
    """`Qwen2_5OmniForConditionalGeneration`, and its thinker alone."""

    name = "qwen2_5_omni"
    classes = ("Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5OmniForConditionalGeneration")
    one_window = True
    tokens_field = talker.FIELD
    limits = "The talker was trained on the states of the whole thinker."

    def check_talks(self, model: PreTrainedModel) -> None:
        """See `shoal.models.families.talker.check_talks`."""
        talker.check_talks(model)

    def check_spoken(self, row: Row) -> None:
        """See `shoal.models.families.talker.check_speech_tokens`."""
        talker.check_speech_tokens(row)

    def asked_to_say(self, processor: Any, instruction: str, text: str) -> str:
        """The prompt that asks for a text, after the system prompt with which the model speaks."""
        wording = (("system", talker.SYSTEM), ("user", f"{instruction}\n{text}"))
        turns = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in wording]
        template = self.chat_template(processor)
        return str(
            processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, chat_template=template)
        )

    def spoken_batch(self, model: PreTrainedModel, processor: Any, clips: Sequence[Clip], task: Task) -> PreparedBatch:
        """The request for each clip's words, the words as the thinker's reply, and the row's speech tokens.

        Raises:
            ManifestError: a row holds no speech tokens of this model's.
            ModelError: the model has no talker, or no chat template.
        """
        talker.check_talks(model)
        words = [task.target(clip.row) for clip in clips]
        prompts = [self.asked_to_say(processor, task.instruction, text) for text in words]
        speaks: Any = model.talker
        return talker.forced_batch(
            [clip.id for clip in clips],
            processor.tokenizer(prompts, add_special_tokens=False)["input_ids"],
            processor.tokenizer(words, add_special_tokens=False)["input_ids"],
            [talker.speech_tokens_of(clip.row, speaks) for clip in clips],
        ).to(model.device)

    def spoken_losses(self, model: PreTrainedModel, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """The talker's, which has one codebook, beside a thinker that replies with the very words."""
        return talker.losses(model, batch)

    def spoken_rate(self, processor: Any) -> int:
        """The vocoder's."""
        return talker.RATE

    def speeches(
        self, model: PreTrainedModel, processor: Any, texts: Sequence[str], seconds: float, instruction: str = ""
    ) -> list[talker.Speech]:
        """Waves and speech tokens of what the model replies when it is asked to say each text; see `speak`."""
        talker.check_talks(model)
        prompts = [self.asked_to_say(processor, instruction, text) for text in texts]
        inputs = processor.tokenizer(
            prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        ).to(model.device)
        return talker.say(model, {name: inputs[name] for name in ("input_ids", "attention_mask")}, seconds)

    def speak(
        self, model: PreTrainedModel, processor: Any, texts: Sequence[str], seconds: float, instruction: str = ""
    ) -> list[Samples]:
        """The thinker replies and the talker speaks as it does; nothing where either ends at once."""
        return [speech.samples for speech in self.speeches(model, processor, texts, seconds, instruction)]


FAMILY = Qwen25Omni()
