"""Fun-ASR-Nano: a SenseVoice encoder, a projector with transformer layers of its own, a Qwen3 decoder."""

from __future__ import annotations

from shoal.models.families.transcriber import TranscriptionFamily


class FunAsrNano(TranscriptionFamily):
    """`FunAsrNanoForConditionalGeneration`; the layers of its projector are none of the decoder's."""

    name = "fun_asr_nano"
    classes = ("FunAsrNanoForConditionalGeneration",)
    encodes_one_by_one = True
    # transformers 5.23 makes no mask for the projector's layers, so they look at padding.
    limits = "recognition only: it takes no instruction; needs torchaudio to hear"


FAMILY = FunAsrNano()
