"""Gemma 4 without encoders: 40 ms of samples are one audio token, through a single projection."""

from __future__ import annotations

from shoal.models.families.audio_llm import AudioLLM
from shoal.models.families.gemma4 import GlobalLayers


class Gemma4Unified(GlobalLayers, AudioLLM):
    """`Gemma4UnifiedForConditionalGeneration`."""

    name = "gemma4_unified"
    classes = ("Gemma4UnifiedForConditionalGeneration",)
    encoder_names = ("embed_audio",)
    projector_names = ()
    limits = (
        "It has no encoder but a projection of the samples. The last layer has to be a global one; layers whose keys "
        "and values later ones read cannot be removed."
    )


FAMILY = Gemma4Unified()
