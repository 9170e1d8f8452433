"""Qwen2-Audio: Whisper encoder, a linear projector, a Qwen2 decoder."""

from __future__ import annotations

from typing import Any

from shoal.models.families.audio_llm import AudioLLM
from shoal.models.families.windowed import one_window


class Qwen2Audio(AudioLLM):
    """`Qwen2AudioForConditionalGeneration`."""

    name = "qwen2_audio"
    classes = ("Qwen2AudioForConditionalGeneration",)

    def longest(self, processor: Any) -> float | None:
        """One window."""
        return one_window(processor)


FAMILY = Qwen2Audio()
