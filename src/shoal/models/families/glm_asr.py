"""GLM-ASR: a Whisper encoder with rotary positions, four frames to a slot, a Llama decoder."""

from __future__ import annotations

from shoal.models.families.windowed import Windowed


class GlmAsr(Windowed):
    """`GlmAsrForConditionalGeneration`."""

    name = "glm_asr"
    classes = ("GlmAsrForConditionalGeneration",)


FAMILY = GlmAsr()
