"""Qwen3-ASR: an audio encoder with windowed attention, a two-layer projector, a Qwen3 decoder."""

from __future__ import annotations

from typing import Any

from shoal.models.families.transcriber import TranscriptionFamily


class Qwen3ASR(TranscriptionFamily):
    """`Qwen3ASRForConditionalGeneration`; detects the language itself, since a task names none."""

    name = "qwen3_asr"
    classes = ("Qwen3ASRForConditionalGeneration",)
    encodes_one_by_one = True
    # Beside a longer clip the feature extractor counts one more frame of some clips.
    limits = "recognition only: it takes no instruction"

    def answer(self, processor: Any, text: str) -> str:
        """What follows `language <NAME><asr_text>`."""
        return str(processor.extract_transcription(text))


FAMILY = Qwen3ASR()
