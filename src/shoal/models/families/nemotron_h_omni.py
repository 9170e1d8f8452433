"""Nemotron 3 Nano Omni: a Parakeet encoder beside one for images, a Nemotron-H causal LM inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.models.families.nemotron import Nemotron

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class NemotronHOmni(Nemotron):
    """`NemotronH_Omni_Reasoning_V3`; its `multi_modal_projector` is for images."""

    name = "nemotron_h_omni"
    classes = ("NemotronH_Omni_Reasoning_V3",)
    projector_names = ("embed_audio",)
    encodes_one_by_one = True
    # The convolutions before the encoder see padding at the end of some clips.

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """That of the causal LM inside."""
        return super().head(model.language_model)


FAMILY = NemotronHOmni()
