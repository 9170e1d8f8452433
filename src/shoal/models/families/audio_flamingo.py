"""Audio Flamingo 3 and Music Flamingo: a Whisper encoder, a two-layer projector, a Qwen2 decoder.

Music Flamingo turns the encoder's states by the time at which they stand, before the projector.
"""

from __future__ import annotations

import re
from typing import Any

from shoal.models.families.audio_llm import AudioLLM

_SENTENCE = re.compile(
    r"""The\ (?:spoken\ content|transcription|content)\ of\ the\ (?:input\ )?audio\ is\ (["'])(.*)\1\.?""",
    re.DOTALL | re.VERBOSE,
)
"""How Audio Flamingo 3 was trained to give a transcript."""


class AudioFlamingo(AudioLLM):
    """`AudioFlamingo3ForConditionalGeneration` and `MusicFlamingoForConditionalGeneration`."""

    name = "audio_flamingo"
    classes = ("AudioFlamingo3ForConditionalGeneration", "MusicFlamingoForConditionalGeneration")
    whole_windows = True

    def answer(self, processor: Any, text: str) -> str:
        """What stands in quotation marks, where the answer is a sentence about the audio's content."""
        match = _SENTENCE.fullmatch(text.strip())
        return match[2] if match else text


FAMILY = AudioFlamingo()
