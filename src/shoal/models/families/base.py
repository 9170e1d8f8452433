"""What Shoal must know about an architecture: where its parts are, and what in it depends on the depth.

A new family is one file with a subclass of `Family` bound to the name `FAMILY`, and one line in the
registry of `shoal.models.families`. Only `matches` has no default; the others are right for a model whose
decoder is found by `get_decoder()` and whose config is found by `get_text_config()`. Override what differs,
and add a tiny build of the class to the contract test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from shoal.errors import ModelError
from shoal.models.families import fields

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

LAYER_LISTS = ("layers", "h", "blocks")
"""Names under which decoders of transformers keep their layers."""

INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "layer_number", "block_idx")
"""Names under which modules remember which layer they belong to (they address the cache with it)."""


def needs_family(owner: object, problem: str) -> ModelError:
    """The refusal of a model or processor that only a family of its own would know how to handle."""
    return ModelError(problem, where=type(owner).__name__, fix="add a family for it in shoal/models/families")


class Family(ABC):
    """Where the parts of an architecture are, and what follows its depth. Instances hold no state."""

    name: ClassVar[str]
    encoder_names: ClassVar[tuple[str, ...]] = ("audio_tower", "encoder")
    projector_names: ClassVar[tuple[str, ...]] = ("multi_modal_projector", "projector")
    handles: ClassVar[frozenset[str]] = frozenset()
    """Fields that are refused in general and that `pruned_fields` of this family sets or refuses itself."""
    adapter: ClassVar[str | None] = None
    """The folder in a checkpoint's with a low-rank adapter that is part of the model: merged when it is loaded."""
    cacheless: ClassVar[bool] = True
    """Whether `generate` works without a cache too, so that decoding with one can be checked by it."""
    writes: ClassVar[bool] = True
    """Whether `generate` answers in text, so that there is something to score."""
    scales_logits: ClassVar[bool] = True
    """Whether the stock class scales its logits where the decoder's config asks for it (`logits_scaling`)."""
    generate_options: ClassVar[Mapping[str, Any]] = {}
    """What `generate` must be told beside the inputs, such as to leave out a part that speaks."""

    @abstractmethod
    def matches(self, model: PreTrainedModel) -> bool:
        """Whether this family is the one for `model`."""

    def check(self, model: PreTrainedModel) -> None:
        """Make sure that the parts of a model that matches are there.

        Raises:
            ModelError: they are not; naming what is missing.
        """
        self.depth(model)

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
        kind = type(decoder).__name__
        raise needs_family(model, f"its decoder ({kind}) has no list of layers under {', '.join(LAYER_LISTS)}")

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
        copies = [config for config in held if isinstance(config, PreTrainedConfig) and type(config) is type(saved)]
        return list({id(config): config for config in (saved, *copies)}.values())

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
        return fields.per_layer_fields(config, getattr(config, self.depth_field(config)), handled=self.handles)

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """What to set in the decoder's config so that it describes the layers in `keep` (ascending) only.

        Raises:
            ModelError: a field may depend on the depth and is not understood.
        """
        field = self.depth_field(config)
        followed = fields.pruned_fields(config, getattr(config, field), keep, handled=self.handles)
        return {field: len(keep)} | followed

    def reads_tokens(self, model: PreTrainedModel) -> bool:
        """Whether the decoder reads the tokens themselves, so that it cannot be run from their embeddings."""
        return False

    def answering_path(self, model: PreTrainedModel) -> str:
        """Where in `model` the part is that hears and answers in text; empty: it is the model itself.

        A model that also speaks may have no forward pass of its own.
        """
        return ""

    def answering(self, model: PreTrainedModel) -> PreTrainedModel:
        """The part of `model` that hears and answers in text."""
        return cast("PreTrainedModel", model.get_submodule(self.answering_path(model)))

    def layers_path(self, model: PreTrainedModel) -> str:
        """The qualified name of the list of layers in `model`, such as `model.language_model.layers`."""
        return _qualified_name(model, self.layers(model))

    def config_path(self, model: PreTrainedModel) -> tuple[str, ...]:
        """The attributes that lead from the model's config to the decoder's: `("text_config",)`, or none.

        Raises:
            ModelError: the decoder's config is not inside the model's, so a change of it would not be saved.
        """
        target = self.text_config(model)
        if (path := _path_to(model.config, target)) is not None:
            return path
        raise needs_family(model, f"the decoder's config ({type(target).__name__}) is not inside the model's")

    def other_fields(self, config: PreTrainedConfig, depth: int, keep: Sequence[int]) -> Mapping[tuple[str, ...], Any]:
        """What else in the model's config follows the decoder's depth, beside the decoder's own config.

        Args:
            config: the config of the whole model.
            depth: the decoder's number of layers L.
            keep: indices in 0 … L-1 of the layers that stay, ascending.

        Returns:
            Attribute path from `config` → the value it takes.

        Raises:
            ModelError: it cannot follow.
        """
        return {}

    def generation_fields(self, config: GenerationConfig, depth: int, keep: Sequence[int]) -> Mapping[str, Any]:
        """What in the generation config names layers, and the value it takes; arguments as `other_fields`."""
        return {}

    def layered_tensors(self, config: PreTrainedConfig) -> Mapping[str, int]:
        """Parameters outside the layers that hold one part for each layer.

        Args:
            config: the decoder's config.

        Returns:
            Name in the decoder (such as `embed_tokens_per_layer.weight`) → the dimension along which the parts
            of the L layers follow each other, all of the same length.
        """
        return {}

    def attributes(self, model: PreTrainedModel, keep: Sequence[int]) -> Iterator[tuple[nn.Module, str, Any]]:
        """What modules outside the layers remember of them: (module, attribute, value after pruning).

        Args:
            model: before its layers are removed, with its config pruned already.
            keep: indices of the layers that stay, ascending.
        """
        yield from ()

    def state(self, hidden: Tensor) -> Tensor:
        """The residual stream (B, T, d) in what a layer takes and gives, where that holds more."""
        return hidden

    def token_limit(self, processor: Any, seconds: float, limit: int) -> int:
        """How many tokens a clip of `seconds` may get, where the general rule says `limit`."""
        return limit

    def answer(self, processor: Any, text: str) -> str:
        """What of `text`, which the model wrote, is its answer: without the marks of a form of its own."""
        return text

    def forward_inputs(self, model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """What of `inputs`, with which `generate` goes on from the tokens, a forward pass over the tokens takes."""
        return inputs

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


def _qualified_name(model: nn.Module, target: nn.Module) -> str:
    return next(name for name, module in model.named_modules(remove_duplicate=False) if module is target)


def _path_to(config: PreTrainedConfig, target: PreTrainedConfig) -> tuple[str, ...] | None:
    """Where `target` is in `config`, by identity; depth first."""
    from transformers import PreTrainedConfig

    if config is target:
        return ()
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig) and (rest := _path_to(value, target)) is not None:
            return (name, *rest)
    return None


def _first_module(model: PreTrainedModel, names: Sequence[str]) -> nn.Module | None:
    """The first of `names` that is a module of `model` or of its base model."""
    from torch import nn

    for owner in (model, getattr(model, "model", None)):
        for name in names:
            if isinstance(part := getattr(owner, name, None), nn.Module):
                return part
    return None
