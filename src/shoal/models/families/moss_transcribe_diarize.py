"""MOSS-Transcribe-Diarize: a Whisper encoder, merged frames with time markers between them, a Qwen3 decoder."""

from __future__ import annotations

from typing import Any

from shoal.models.families.transcriber import TranscriptionFamily


class MossTranscribeDiarize(TranscriptionFamily):
    """`MossTranscribeDiarizeForConditionalGeneration`; time markers inside the audio count as prompt."""

    name = "moss_transcribe_diarize"
    classes = ("MossTranscribeDiarizeForConditionalGeneration",)
    takes_instruction = True

    def answer(self, processor: Any, text: str) -> str:
        """The words of all segments, without times and speakers."""
        return str(processor.extract_transcription(text))


FAMILY = MossTranscribeDiarize()
