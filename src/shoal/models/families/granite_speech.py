"""Granite Speech: a Conformer, a Q-Former over windows of its states, a Granite decoder.

Some checkpoints have a low-rank adapter beside their weights, which the stock `generate` switches on for audio and off
without. `shoal.models.peft_folder` merges it.
"""

from __future__ import annotations

from typing import Any

from shoal.models.families.audio_llm import AudioLLM

SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: April 9, 2025.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
"""The model card's, for templates that would otherwise write today's date into every prompt."""


class GraniteSpeech(AudioLLM):
    """`GraniteSpeechForConditionalGeneration` and `GraniteSpeechPlusForConditionalGeneration`."""

    name = "granite_speech"
    classes = ("GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration")
    # Its Conformer sees the padding of a shorter clip as silence: it has no mask.
    encodes_one_by_one = True
    # transformers 5.23 puts a bare head on the decoder, so a loss is at another temperature than in training.
    scales_logits = False
    limits = (
        "the stock class does not scale its logits, which sharpens every loss; "
        "an adapter beside its weights is merged when it is loaded, so text is measured with it too "
        "(the stock class switches it off); needs torchaudio to hear"
    )

    def prompt(self, processor: Any, instruction: str) -> str:
        """See `AudioLLM.prompt`; its templates take strings only, in which the audio has a token."""
        template = self.chat_template(processor)
        turns = [{"role": "user", "content": f"{processor.audio_token}{instruction}"}]
        if "strftime_now" in template:
            turns.insert(0, {"role": "system", "content": SYSTEM})
        return str(
            processor.tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        )


FAMILY = GraniteSpeech()
