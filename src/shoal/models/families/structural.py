"""Any other model with an LLM inside, found by its structure: classes that no file here knows, and custom code.

Nothing is known of such a class but what can be seen of it, so everything that could depend on the depth and is not
understood is a reason to refuse it, by the name of the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.batch import on_device
from shoal.models.families import fields
from shoal.models.families.audio_llm import AudioLLM, Inputs, Question, Samples
from shoal.models.families.base import needs_family

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from shoal.schema import InputKind

BY_LAYER = re.compile(r"deepstack|(^|_)(layer|layers)(_|$)")
"""Fields beside the decoder's config that may name its layers."""
ENCODERS = re.compile(r"vision|image|video|visual|audio|speech|acoustic|encoder|feature|qformer|q_former|norm")
"""Fields, or configs, that speak of another part."""

POINTERS = re.compile(r"position|start|_idx$|_ind(ex|ices)$|_slots?$")
"""Inputs that may say where in the row of tokens the audio stands."""


class Structural(AudioLLM):
    """A model whose decoder `get_decoder()` finds, with its config inside the model's, and a head."""

    name = "structural"
    classes = ()
    engine = False
    encoder_names = ("audio_tower", "audio_encoder", "speech_encoder", "encoder")
    projector_names = ("multi_modal_projector", "projector", "adapter", "audio_projector", "connector")
    limits = "found by structure: measured only where the processor puts an audio token for every frame"

    def matches(self, model: PreTrainedModel) -> bool:
        """Whether there is another module inside that could be its decoder."""
        return self.decoder(model) is not model

    def check(self, model: PreTrainedModel) -> None:
        """Refuse whatever is not understood: see the module's docstring.

        Raises:
            ModelError: no list of layers, no stated depth, no head, or a field that may follow the depth.
        """
        depth = self.depth(model)
        config = self.text_config(model)
        self.config_path(model)
        self.per_layer_fields(config)
        if self.head(model) is None:
            raise ModelError("its decoder has no head, so it gives no tokens", where=type(model).__name__)
        if model.config is not config:
            fields.refuse_unknown(model.config, depth)
        for path in _suspicious(model.config, config):
            problem = f"the config field {path} may name layers of the decoder, and its class is not known to Shoal"
            raise needs_family(model, problem)

    def text_config(self, model: PreTrainedModel) -> PreTrainedConfig:
        """The decoder's config, where there is one only.

        Raises:
            ModelError: several could be it.
        """
        try:
            return super().text_config(model)
        except ValueError as error:
            problem = f"several of its configs could be its decoder's ({str(error)[:120]})"
            raise needs_family(model, problem) from error

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """The model's own, or that of the language model inside."""
        inner: Any = getattr(model, "language_model", None)
        owners = [owner for owner in (model, inner) if hasattr(owner, "get_output_embeddings")]
        return next((head for owner in owners if (head := owner.get_output_embeddings()) is not None), None)

    def inputs_of(self, model: PreTrainedModel, processor: Any) -> tuple[InputKind, ...]:
        """Speech and text where there is an encoder, a processor that asks for audio, and an audio token."""
        hears = self.encoder(model) is not None and self.audio_token(model, processor) is not None
        return self.inputs if processor is not None and hears else ()

    def request(self, model: PreTrainedModel, processor: Any, clips: Sequence[Samples], question: Question) -> Inputs:
        """As most processors are called; the audio's place must be visible in the tokens.

        Raises:
            ModelError: the audio token is not among them, or another input says where the audio is.
        """
        inputs = super().request(model, processor, clips, question)
        for name in filter(POINTERS.search, inputs):
            problem = f"its processor gives {name}, which may point at positions that move when a batch is laid out"
            raise needs_family(processor, problem)
        token = self.audio_token(model, processor)
        if token is None or not bool(inputs["input_ids"].eq(token).any(dim=1).all()):
            problem = f"its processor puts no audio token ({token}) into the prompt, so the audio's place is not known"
            raise needs_family(processor, problem)
        return inputs

    def silent_inputs(self, model: PreTrainedModel) -> dict[str, Tensor] | None:
        """Random tokens, if the model runs on them alone."""
        import torch

        inputs = super().silent_inputs(model)
        if inputs is None:
            return None
        try:
            with torch.no_grad():
                model(**on_device(inputs, model.device), use_cache=False)
        except Exception:  # whatever an unknown class raises: it does not run on tokens alone
            return None
        return inputs


def _suspicious(config: PreTrainedConfig, decoder: PreTrainedConfig, path: str = "") -> Iterator[str]:
    """Where in `config`, outside the decoder's own, a field looks as if it named layers of the decoder."""
    from transformers import PreTrainedConfig

    own_depth = path or config is decoder
    for name, value in vars(config).items():
        field = f"{path}{name}"
        if isinstance(value, PreTrainedConfig):
            if value is not decoder:
                yield from _suspicious(value, decoder, f"{field}.")
        elif _set(value) and ("deepstack" in name or (not own_depth and _names_layers(name))):
            yield field


def _names_layers(name: str) -> bool:
    return bool(BY_LAYER.search(name)) and not ENCODERS.search(name) and not name.startswith("_")


def _set(value: Any) -> bool:
    return value is not None and value is not False and value != []


FAMILY = Structural()
