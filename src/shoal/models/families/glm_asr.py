"""GLM-ASR: a Whisper encoder with rotary positions, four frames to a slot, a Llama decoder."""

from __future__ import annotations

from shoal.models.families.audio_llm import AudioLLM


class GlmAsr(AudioLLM):
    """`GlmAsrForConditionalGeneration`."""

    name = "glm_asr"
    classes = ("GlmAsrForConditionalGeneration",)
    whole_windows = True


FAMILY = GlmAsr()
