"""MOSS-Transcribe-Diarize: a Whisper encoder, merged frames with time markers between them, a Qwen3 decoder."""

from __future__ import annotations

from shoal.models.families.transcriber import TranscriptionFamily


class MossTranscribeDiarize(TranscriptionFamily):
    """`MossTranscribeDiarizeForConditionalGeneration`; time markers inside the audio count as prompt."""

    name = "moss_transcribe_diarize"
    classes = ("MossTranscribeDiarizeForConditionalGeneration",)
    takes_instruction = True


FAMILY = MossTranscribeDiarize()
