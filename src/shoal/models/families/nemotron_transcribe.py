"""Nemotron 3.5 Transcribe: a recognition and a diarization encoder side by side, a Nemotron-H decoder.

Word time stamps come from a head on the encoder, which the decoder's depth does not touch.
"""

from __future__ import annotations

from typing import Any

from shoal.models.families.nemotron import Nemotron


class NemotronTranscribe(Nemotron):
    """`Nemotron3_5TranscribeForConditionalGeneration`."""

    name = "nemotron_transcribe"
    classes = ("Nemotron3_5TranscribeForConditionalGeneration",)
    encodes_one_by_one = True
    # The diarization of a clip, and with it the speakers that are heard, depends on the length of the batch.

    def prompt(self, processor: Any, instruction: str) -> str:
        """The instruction comes before the audio, as in training."""
        return self.rendered(processor, [{"type": "text", "text": instruction}, {"type": "audio"}])


FAMILY = NemotronTranscribe()
