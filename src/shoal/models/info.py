"""Which model this is, and where its parameters are: from its modules, with or without their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.models.families.audio_llm import AudioLLM
from shoal.models.lineage import removed_layers
from shoal.schema import ModelInfo

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family

Kind = Literal["speech_llm", "causal_lm", "audio_llm"]
"""Shoal's own SpeechLLM, a text LLM, or an audio LLM of another class that is fed by its own processor."""


def kind_of(family: Family) -> Kind:
    """What kind of model a family is of."""
    if family.name == "speech_llm":
        return "speech_llm"
    return "audio_llm" if isinstance(family, AudioLLM) else "causal_lm"


def model_info(
    model: PreTrainedModel, family: Family, folder: Path, *, ref: str, licence: str | None, fingerprint: str = ""
) -> ModelInfo:
    """Describe a model; it may lie on the meta device.

    Args:
        model: whole, before any pruning in memory.
        family: its family.
        folder: where it came from, for what was removed before.
        ref: what the user calls it.
        licence: its licence, if known.
        fingerprint: of its weights, where they were read.
    """
    layers, total = family.layers(model), parameter_count(model)
    per_layer = [parameter_count(layer) for layer in layers]
    encoder, projector = (
        0 if part is None else parameter_count(part) for part in (family.encoder(model), family.projector(model))
    )
    return ModelInfo(
        ref=ref,
        kind=kind_of(family),
        class_name=type(model).__name__,
        family=family.name,
        depth=len(layers),
        hidden_size=int(family.text_config(model).hidden_size),
        encoder_parameters=encoder,
        projector_parameters=projector,
        decoder_layer_parameters=per_layer,
        decoder_other_parameters=total - encoder - projector - sum(per_layer),
        total_parameters=total,
        removed_layers=removed_layers(folder),
        licence=licence,
        fingerprint=fingerprint,
    )


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())
