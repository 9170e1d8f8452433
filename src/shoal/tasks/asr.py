"""Speech recognition: write down what is said, in the language it is said in."""

from __future__ import annotations

from typing import ClassVar

from shoal.data.clip import Row
from shoal.tasks.base import Normaliser, Task, Unit
from shoal.tasks.languages import WITHOUT_SPACES, primary
from shoal.tasks.normalisers import whisper


class Asr(Task):
    """Recognition, scored by word error rate; by character error rate where a script has no spaces."""

    name: ClassVar[str] = "asr"
    title: ClassVar[str] = "speech recognition"
    instruction: ClassVar[str] = "Transcribe the speech."
    needs_text: ClassVar[bool] = True
    scored_by: ClassVar[tuple[str, ...]] = ("WER", "CER")

    def target(self, row: Row) -> str:
        """The transcript."""
        return self.transcript(row)

    def normaliser(self, lang: str | None) -> Normaliser:
        """Whisper's, by language."""
        return whisper(lang)

    def unit(self, lang: str | None) -> Unit:
        """`char` where the script has no spaces (Chinese, Japanese, Thai …), else `word`."""
        return "char" if primary(lang) in WITHOUT_SPACES else "word"
