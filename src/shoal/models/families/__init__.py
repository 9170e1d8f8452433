"""Architecture families: where the layers, encoder, projector and head of a model are.

Adding one: a file with a subclass of `Family` bound to `FAMILY`, and its name in `REGISTRY`, before
`causal_lm`. The last one, `structural`, takes any other model whose structure is understood.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from shoal.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family

REGISTRY: tuple[str, ...] = (
    "speech_llm",
    "qwen2_audio",
    "whisper",
    "qwen3_asr",
    "fun_asr_nano",
    "moss_transcribe_diarize",
    "vibevoice_asr",
    "moonshine",
    "canary",
    "audio_flamingo",
    "glm_asr",
    "moonshine_streaming",
    "qwen2_5_omni",
    "qwen3_omni_moe",
    "granite_speech",
    "csm",
    "voxtral",
    "voxtral_realtime",
    "phi4_multimodal",
    "kyutai_speech_to_text",
    "moshi",
    "vibevoice",
    "nemotron_transcribe",
    "nemotron_h_omni",
    "gemma4",
    "gemma4_unified",
    "higgs_audio",
    "gemma3n",
    "gemma_text",
    "causal_lm",
    "structural",
)
"""The modules of this folder that hold a family, asked in this order."""

__all__ = ["REGISTRY", "families", "find"]


def families() -> list[Family]:
    """All families, in the order they are asked."""
    return [import_module(f"{__name__}.{name}").FAMILY for name in REGISTRY]


def find(model: PreTrainedModel) -> Family:
    """The family of `model`.

    Raises:
        ModelError: no family knows the model, or its decoder layers cannot be found.
    """
    for family in families():
        if family.matches(model):
            family.check(model)
            return family
    raise ModelError(
        f"no family knows this architecture (known: {', '.join(REGISTRY)})",
        where=type(model).__name__,
        fix="use one of these, or add a family in shoal/models/families",
    )
