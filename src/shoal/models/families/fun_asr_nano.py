"""Fun-ASR-Nano: a SenseVoice encoder, a projector with transformer layers of its own, a Qwen3 decoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from shoal.models.families.transcriber import TranscriptionFamily

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FunAsrNano(TranscriptionFamily):
    """`FunAsrNanoForConditionalGeneration`; the layers of its projector are none of the decoder's."""

    name = "fun_asr_nano"
    classes = ("FunAsrNanoForConditionalGeneration",)
    encodes_one_by_one = True
    # transformers 5.23 makes no mask for the projector's layers, so they look at padding.
    limits = "recognition only: it takes no instruction, but the language of the row; needs torchaudio to hear"

    def languages(self, model: PreTrainedModel, *, transcribe: bool) -> Collection[str]:
        """Chinese, English and Japanese."""
        from transformers.models.fun_asr_nano.processing_fun_asr_nano import LANGUAGE_CODE_TO_NAME

        return LANGUAGE_CODE_TO_NAME.keys()


FAMILY = FunAsrNano()
