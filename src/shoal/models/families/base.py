"""What Shoal must know about an architecture: where its parts are, and what in it depends on the depth.

A new family is one file with a subclass of `Family` bound to the name `FAMILY`, and one line in the
registry of `shoal.models.families`. Only `matches` has no default; the others are right for a model whose
decoder is found by `get_decoder()` and whose config is found by `get_text_config()`. Override what differs,
and add a tiny build of the class to the contract test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from shoal.errors import ModelError
from shoal.models.families import fields

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

LAYER_LISTS = ("layers", "h", "blocks")
"""Names under which decoders of transformers keep their layers."""

INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "layer_number", "block_idx")
"""Names under which modules remember which layer they belong to (they address the cache with it)."""


class Family(ABC):
    """Where the parts of an architecture are, and what follows its depth. Instances hold no state."""

    name: ClassVar[str]
    encoder_names: ClassVar[tuple[str, ...]] = ("audio_tower", "encoder")
    projector_names: ClassVar[tuple[str, ...]] = ("multi_modal_projector", "projector")

    @abstractmethod
    def matches(self, model: PreTrainedModel) -> bool:
        """Whether this family is the one for `model`."""

    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """The decoder stack without the head: embeddings in, states after the final norm out."""
        stack: Any = model
        while (inner := stack.get_decoder() if hasattr(stack, "get_decoder") else stack) is not stack:
            stack = inner
        # A few classes answer with themselves or with their head; their stack is where most keep it.
        return stack if _layer_list(stack) else getattr(model, "model", stack)

    def layer_list_name(self, model: PreTrainedModel) -> str:
        """The attribute of the decoder that holds its layers.

        Raises:
            ModelError: there is no list of layers.
        """
        decoder = self.decoder(model)
        if name := _layer_list(decoder):
            return name
        raise ModelError(
            f"its decoder ({type(decoder).__name__}) has no list of layers under {', '.join(LAYER_LISTS)}",
            where=type(model).__name__,
            fix="add a family for it in shoal/models/families",
        )

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The decoder's layers, first to last."""
        return getattr(self.decoder(model), self.layer_list_name(model))

    def set_layers(self, model: PreTrainedModel, layers: nn.ModuleList) -> None:
        """Put `layers` where the decoder's layers are; touches nothing else."""
        setattr(self.decoder(model), self.layer_list_name(model), layers)

    def encoder(self, model: PreTrainedModel) -> nn.Module | None:
        """The speech encoder; None in a text model."""
        return _first_module(model, self.encoder_names)

    def projector(self, model: PreTrainedModel) -> nn.Module | None:
        """What turns encoder states into decoder embeddings; None in a text model."""
        return _first_module(model, self.projector_names)

    def head(self, model: PreTrainedModel) -> nn.Module | None:
        """What turns decoder states into logits; None in a model without one."""
        return model.get_output_embeddings()

    def text_config(self, model: PreTrainedModel) -> PreTrainedConfig:
        """The config of the decoder, as it is saved with the model."""
        return model.config.get_text_config()

    def configs(self, model: PreTrainedModel) -> list[PreTrainedConfig]:
        """Every config object that describes the decoder: the saved one, then copies its modules hold."""
        from transformers import PreTrainedConfig

        saved = self.text_config(model)
        held = (getattr(module, "config", None) for module in self.decoder(model).modules())
        found = {id(saved): saved}
        found |= {
            id(each): each
            for each in held
            if isinstance(each, PreTrainedConfig) and type(each) is type(saved)
        }
        return list(found.values())

    def depth_field(self, config: PreTrainedConfig) -> str:
        """The field of the decoder's config that holds the number of layers.

        In configs that an encoder shares, `num_hidden_layers` is another name for the encoder's depth.
        """
        shared = config.attribute_map.get("num_hidden_layers") == "encoder_layers"
        return "decoder_layers" if shared else "num_hidden_layers"

    def depth(self, model: PreTrainedModel) -> int:
        """The number of layers L.

        Raises:
            ModelError: the config states another number than there are layers.
        """
        config = self.text_config(model)
        count, field = len(self.layers(model)), self.depth_field(config)
        if (stated := getattr(config, field, None)) != count:
            raise ModelError(
                f"the config states {field}={stated} but the decoder has {count} layers",
                where=type(model).__name__,
                fix="load the checkpoint with the config it was saved with",
            )
        return count

    def per_layer_fields(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of the decoder's config that change when layers are removed, with their values.

        Raises:
            ModelError: a field may depend on the depth and is not understood.
        """
        return fields.per_layer_fields(config, getattr(config, self.depth_field(config)))

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """What to set in the decoder's config so that it describes the layers in `keep` (ascending) only.

        Raises:
            ModelError: a field may depend on the depth and is not understood.
        """
        field = self.depth_field(config)
        return {field: len(keep)} | fields.pruned_fields(config, getattr(config, field), keep)

    def layer_indices(self, layer: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
        """Where `layer` and its parts remember their index: (module, attribute, value)."""
        for module in layer.modules():
            for name in INDEX_ATTRIBUTES:
                value = getattr(module, name, None)
                if isinstance(value, int) and not isinstance(value, bool):
                    yield module, name, value


def _layer_list(stack: nn.Module) -> str | None:
    """The name of the layer list of `stack`, if it has one."""
    from torch import nn

    return next((name for name in LAYER_LISTS if isinstance(getattr(stack, name, None), nn.ModuleList)), None)


def _first_module(model: PreTrainedModel, names: Sequence[str]) -> nn.Module | None:
    """The first of `names` that is a module of `model` or of its base model."""
    from torch import nn

    for owner in (model, getattr(model, "model", None)):
        for name in names:
            if isinstance(part := getattr(owner, name, None), nn.Module):
                return part
    return None
