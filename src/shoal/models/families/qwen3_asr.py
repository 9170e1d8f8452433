"""Qwen3-ASR: an audio encoder with windowed attention, a two-layer projector, a Qwen3 decoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from shoal.models.families.transcriber import TranscriptionFamily

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Qwen3ASR(TranscriptionFamily):
    """`Qwen3ASRForConditionalGeneration`; begins its answer with the language that it detects unless it is told one."""

    name = "qwen3_asr"
    classes = ("Qwen3ASRForConditionalGeneration",)
    encodes_one_by_one = True
    # Beside a longer clip the feature extractor counts one more frame of some clips.
    limits = "recognition only: it takes no instruction, but the language of the row"

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Those that it was trained with."""
        from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

        return LANGUAGE_CODE_TO_NAME.keys()


FAMILY = Qwen3ASR()
