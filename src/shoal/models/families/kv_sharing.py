"""Layers that attend to the keys and values of an earlier layer, as in Gemma 3n and Gemma 4.

The last `num_kv_shared_layers` layers have none of their own: each takes those of the last layer before them that is of
its own kind (local or global). Whatever goes, those that stay must find the same source in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.models.families import fields
from shoal.models.families.base import Family

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

FIELD = "num_kv_shared_layers"
EMBEDDED = "hidden_size_per_layer_input"
FIRST = "first_kv_shared_layer_idx"
UNUSED = "_keys_to_ignore_on_load_unexpected"


class SharedKeys(Family):
    """What follows the depth in Gemma 3n and Gemma 4: shared keys and values, and an embedding for each layer."""

    handles = frozenset({FIELD, EMBEDDED})

    def per_layer_fields(self, config: PreTrainedConfig) -> dict[str, Any]:
        """And how many layers share."""
        return super().per_layer_fields(config) | {FIELD: getattr(config, FIELD)}

    def pruned_fields(self, config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
        """And how many layers share.

        Raises:
            ModelError: a source goes, or all that read it.
        """
        return super().pruned_fields(config, keep) | {FIELD: shared_layers(config, keep)}

    def attributes(self, model: PreTrainedModel, keep: Sequence[int]) -> Iterator[tuple[nn.Module, str, Any]]:
        """The first layer that shares, and the names on disk of what such layers do not use."""
        decoder = self.decoder(model)
        if FIRST in vars(decoder):
            config = self.text_config(model)
            yield decoder, FIRST, config.num_hidden_layers - getattr(config, FIELD)
        new_index = {old: new for new, old in enumerate(keep)}
        for module in model.modules():
            if unused := vars(module).get(UNUSED):
                yield module, UNUSED, type(unused)(_moved(unused, new_index))

    def reads_tokens(self, model: PreTrainedModel) -> bool:
        """Whether every layer has an embedding of the token."""
        return bool(getattr(self.text_config(model), EMBEDDED, None))

    def layered_tensors(self, config: PreTrainedConfig) -> Mapping[str, int]:
        """The table and the projection that give every layer an embedding of its own."""
        if not getattr(config, EMBEDDED, None):
            return {}
        return {"embed_tokens_per_layer.weight": 1, "per_layer_model_projection.weight": 0}


def _moved(patterns: Iterable[str], new_index: Mapping[int, int]) -> Iterator[str]:
    """Patterns of names, those of layers that stay under their new number, those of others left out."""
    for pattern in patterns:
        match = re.match(r"layers\.(\d+)\.", pattern)
        if match is None:
            yield pattern
        elif (old := int(match[1])) in new_index:
            yield f"layers.{new_index[old]}.{pattern[match.end() :]}"


def sources(config: PreTrainedConfig) -> set[int]:
    """The layers that keep their keys and values for later ones: the last of each kind before those that share."""
    first = config.num_hidden_layers - getattr(config, FIELD)
    if first == config.num_hidden_layers:
        return set()
    return set({kind: layer for layer, kind in enumerate(config.layer_types[:first])}.values())


def shared_layers(config: PreTrainedConfig, keep: Sequence[int]) -> int:
    """How many of the layers in `keep` share keys and values.

    Raises:
        ModelError: a layer goes whose keys and values others read, or all layers that read one.
    """
    first = config.num_hidden_layers - getattr(config, FIELD)
    left = [layer for layer in keep if layer >= first]
    if gone := sorted(sources(config) - set(keep)):
        raise fields.refusal(config, FIELD, f"lets later layers read the keys and values of {gone}, which would go")
    if first < config.num_hidden_layers and not left:
        raise fields.refusal(config, FIELD, "would be 0: at least one layer that reads others' keys has to stay")
    return len(left)
