"""Audio Flamingo 3 and Music Flamingo: a Whisper encoder, a two-layer projector, a Qwen2 decoder.

Music Flamingo turns the encoder's states by the time at which they stand, before the projector.
"""

from __future__ import annotations

import re
from typing import Any

from shoal.models.families.windowed import Windowed

_SENTENCE = re.compile(
    r"""The\ (?:spoken\ content|transcription|content)\ of\ the\ (?:input\ )?audio\ is\ (["'])(.*)\1\.?""",
    re.DOTALL | re.VERBOSE,
)
"""How Audio Flamingo 3 was trained to give a transcript."""


class AudioFlamingo(Windowed):
    """`AudioFlamingo3ForConditionalGeneration` and `MusicFlamingoForConditionalGeneration`."""

    name = "audio_flamingo"
    classes = ("AudioFlamingo3ForConditionalGeneration", "MusicFlamingoForConditionalGeneration")

    def answer(self, processor: Any, text: str) -> str:
        """What stands in quotation marks, where the answer is a sentence about the audio's content."""
        del processor
        found = _SENTENCE.fullmatch(text.strip())
        return found[2] if found else text


FAMILY = AudioFlamingo()
