"""Would the stock class, given the pruned config, build the layers that are in memory?

A config decides some things by a layer's index (which layers attend locally, which are dense, how attention
is scaled). The tables of `shoal.models.families.fields` know the fields that do so; this check needs no
table. It builds the model again from its own config, on the meta device (no memory, no weights), and
compares every layer with the one in memory, part by part. It costs milliseconds, before gigabytes are
written.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.families import fields
from shoal.models.families.base import INDEX_ATTRIBUTES

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from shoal.models.families.base import Family

RUNTIME = frozenset({"training", "gradient_checkpointing", *INDEX_ATTRIBUTES})
"""Attributes that say how a module is used at the moment, or where it stands, not what it is."""


def check_rebuild(model: PreTrainedModel, family: Family) -> None:
    """Make sure that `model`'s class builds the same layers and parameters from `model`'s config.

    Args:
        model: a model after pruning (or before: then it says whether the model can be saved at all).
        family: its family.

    Raises:
        ModelError: naming what would differ, and the config fields that may be the cause.
    """
    fresh = rebuilt(model)
    config = family.text_config(model)
    layers, fresh_layers = family.layers(model), family.layers(fresh)
    if len(layers) != len(fresh_layers):
        raise _refusal(config, f"{len(fresh_layers)} layers would be rebuilt, not {len(layers)}")
    for index, (layer, fresh_layer) in enumerate(zip(layers, fresh_layers, strict=True)):
        if difference := _difference(_traits(layer), _traits(fresh_layer)):
            raise _refusal(config, f"layer {index} would be rebuilt with another {difference}")
    if difference := _difference(_shapes(model), _shapes(fresh)):
        raise _refusal(config, f"the model would be rebuilt with another {difference}")


def rebuilt(model: PreTrainedModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model without weights, from the config as it would be written to disk and read again.

    Args:
        model: whose class and config to take.
        dtype: that it is built in; None: torch's default.

    Raises:
        ModelError: its class cannot be built from its config.
    """
    import torch

    default = torch.get_default_dtype()
    config = model.config
    try:
        with TemporaryDirectory(prefix="shoal-config-") as folder:
            config.save_pretrained(folder)
            again = type(config).from_pretrained(folder)
        torch.set_default_dtype(dtype or default)
        with torch.device("meta"):
            return type(model)(again)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _refusal(config, f"its class cannot be built from the pruned config ({reason})") from error
    finally:
        torch.set_default_dtype(default)


def _traits(layer: nn.Module) -> dict[str, Any]:
    """What every part of a layer is: class, plain attributes, shapes of parameters and buffers."""
    traits: dict[str, Any] = {}
    for path, module in layer.named_modules():
        traits[f"{path}.class"] = type(module).__name__
        for name, value in vars(module).items():
            plain = value is None or isinstance(value, bool | int | float | str)
            if plain and not name.startswith("_") and name not in RUNTIME:
                traits[f"{path}.{name}"] = value
    traits |= {f"{name} shape": tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    return {name.lstrip("."): value for name, value in traits.items()}


def _shapes(model: nn.Module) -> dict[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _difference(expected: dict[str, Any], actual: dict[str, Any]) -> str | None:
    """The first thing that differs, such as `self_attn.sliding_window (None, not 512)`."""
    for name in sorted(expected.keys() | actual.keys()):
        expected_value, actual_value = expected.get(name, "absent"), actual.get(name, "absent")
        if expected_value != actual_value:
            return f"{name} ({actual_value}, not {expected_value})"
    return None


def _refusal(config: PreTrainedConfig, problem: str) -> ModelError:
    names = fields.suspects(config)
    cause = f"; look at the config field{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""
    return config_refusal(config, f"pruned layers would not load as they are: {problem}{cause}")


def config_refusal(config: PreTrainedConfig, problem: str) -> ModelError:
    """A model whose config cannot be pruned."""
    return ModelError(
        problem, where=type(config).__name__, fix="prune in memory, or add a family for it in shoal/models/families"
    )
