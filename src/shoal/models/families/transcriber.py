"""Models made for recognition, whose processors write their own request: `apply_transcription_request`.

They answer in a form of their own (a language tag, time stamps, speakers), from which their processors know how to
take the transcript.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from shoal.models.families.audio_llm import AudioLLM, Question


class TranscriptionFamily(AudioLLM):
    """Asks for a transcript as the model was trained to be asked."""

    takes_instruction: ClassVar[bool] = False
    """Whether a request may hold an instruction in words; where it may hold context only, none is given."""

    def prompts(self, processor: Any, question: Question, clips: int) -> list[str]:
        """One for each clip, which differ in the language that is spoken."""
        languages = question.spoken(clips)
        prompts = {code: self.prompt(processor, question.instruction, code) for code in dict.fromkeys(languages)}
        return [prompts[code] for code in languages]

    def prompt(self, processor: Any, instruction: str, language: str | None = None) -> str:
        """The processor's own request for one clip, as text; instruction and language are in it if it takes any."""
        options = {"prompt": instruction} if self.takes_instruction else {}
        if language is not None:
            options["language"] = language
        silence = np.zeros(self.sampling_rate(processor), dtype=np.float32)
        return str(processor.apply_transcription_request(silence, tokenize=False, **options)[0])

    def answer(self, processor: Any, text: str) -> str:
        """The words alone, without a language, times and speakers."""
        extract = getattr(processor, "extract_transcription", None)
        return str(extract(text)) if extract else text
