"""Qwen2-Audio: Whisper encoder, a linear projector, a Qwen2 decoder."""

from __future__ import annotations

from shoal.models.families.audio_llm import AudioLLM


class Qwen2Audio(AudioLLM):
    """`Qwen2AudioForConditionalGeneration`."""

    name = "qwen2_audio"
    classes = ("Qwen2AudioForConditionalGeneration",)
    one_window = True


FAMILY = Qwen2Audio()
