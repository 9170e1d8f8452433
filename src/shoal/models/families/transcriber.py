"""Models made for recognition, whose processors write their own request: `apply_transcription_request`.

They answer in a form of their own (a language tag, time stamps, speakers), from which their processors know how to
take the transcript.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from shoal.models.families.audio_llm import AudioLLM


class TranscriptionFamily(AudioLLM):
    """Asks for a transcript as the model was trained to be asked."""

    takes_instruction: ClassVar[bool] = False
    """Whether a request may hold an instruction in words; where it may hold context only, none is given."""

    def prompt(self, processor: Any, instruction: str) -> str:
        """The processor's own request for one clip, as text; the instruction is in it if the model takes one."""
        asked = {"prompt": instruction} if self.takes_instruction else {}
        silence = np.zeros(self.sampling_rate(processor), dtype=np.float32)
        prompts = processor.apply_transcription_request(silence, tokenize=False, **asked)
        return str(prompts[0])
