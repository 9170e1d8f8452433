"""Which fields of a Hugging Face config depend on the depth, and what becomes of them after pruning.

There are five kinds. Everything else is left as it is, and a list as long as the model is deep that is in
none of them is refused by its name: a per-layer list that keeps its length would silently describe the
wrong layers.

======================  ============================================  ======================================
Kind                    Example                                       After pruning
======================  ============================================  ======================================
one entry per layer     `layer_types`                                 the entries of the layers that stay
list of layer indices   `mlp_only_layers`                             renumbered
number of first layers  `first_k_dense_replace`                       how many of those stay
every k-th layer        `decoder_sparse_step`                         the same layers, listed by index
cannot follow           `num_kv_shared_layers`                        refused by name, unless switched off
======================  ============================================  ======================================

The names were collected from every `configuration_*.py` and every `config.X[layer_idx]` of transformers
5.23. The table need not be complete to be safe: `shoal.pruning.rebuild` compares each kept layer with the one
the stock class builds from the pruned config, whatever the config is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ONE_PER_LAYER = frozenset(
    {
        "activation_sparsity_pattern",
        "attention_layers",
        "attention_window",
        "attn_layers",
        "indexer_types",
        "intermediate_size",
        "layer_rope_theta",
        "layer_types",
        "layers_block_type",
        "layers_num_experts",
        "mlp_layer_types",
        "moe_topk",
        "no_rope_layers",
        "num_attention_heads_per_layer",
        "num_experts",
        "num_key_value_heads_per_layer",
        "num_shared_expert",
        "sliding_windows",
        "swiglu_limits",
        "swiglu_limits_shared",
    }
)
"""Sliced where the value is a list as long as the model is deep (in other models some are one number)."""

LAYER_INDICES: Mapping[str, int] = {
    "attn_layer_indices": 0,
    "cross_attention_layers": 0,
    "full_attn_idxs": 0,
    "local_layer_ids": 0,
    "mlp_only_layers": 0,
    "moe_layers": 0,
    "ple_layer_ids": 1,
    "rope_scaling_layers": 0,
}
"""Lists of layer indices, with the number the first layer has in them."""

FIRST_LAYERS = frozenset({"first_k_dense_replace", "num_dense_layers"})
"""How many layers at the start are of another kind."""

CANNOT_FOLLOW = frozenset(
    {
        "attn_layer_period",
        "cross_attention_frequency",
        "expert_layer_period",
        "hidden_size_per_layer_input",
        "kv_source_layers",
        "n_layers_per_attn_res_block",
        "num_kv_shared_layers",
        "scale_attn_by_inverse_layer_idx",
    }
)
"""Layers differ by their index, or share state with another, which no config value can express again."""

ON_BUILD = (
    "attn_layer_offset",
    "block_types",
    "expert_layer_offset",
    "full_attention_interval",
    "global_attn_every_n_layers",
    "interleave_moe_layer_step",
    "max_window_layers",
    "moe_layer_end_index",
    "moe_layer_freq",
    "moe_layer_interval",
    "moe_layer_start_index",
    "no_rope_layer_interval",
    "sliding_window_pattern",
    "_sliding_window_pattern",
)
"""Used by index while a model is built, unless an explicit list overrules them: named when a rebuilt layer
differs."""

NOT_PER_LAYER = frozenset(
    {
        "architectures",
        "bad_words_ids",
        "begin_suppress_tokens",
        "forced_decoder_ids",
        "mlp_multipliers",
        "mtp_layer_types",
        "mtp_layers_block_type",
        "mtp_mlp_layer_types",
        "ssm_multipliers",
        "suppress_tokens",
        "time_step_limit",
        "torchscript",
        "keys_to_ignore_at_inference",
    }
)
"""Lists whose length has nothing to do with the depth, though it may equal it in a small model."""


def per_layer_fields(config: PreTrainedConfig, depth: int, *, handled: Collection[str] = ()) -> dict[str, Any]:
    """The fields of `config` that change when layers are removed, with their present values.

    Raises:
        ModelError: as `refuse_unknown`.
    """
    refuse_unknown(config, depth, handled=handled)
    present = vars(config)
    fields = {name: value for name, value in present.items() if _is_sliced(name, value, depth)}
    fields |= {name: present[name] for name in LAYER_INDICES if isinstance(present.get(name), list | tuple)}
    fields |= {name: present[name] for name in FIRST_LAYERS if isinstance(present.get(name), int)}
    fields |= {name: present[name] for name in ("decoder_sparse_step", "attention_types") if name in present}
    return fields


def pruned_fields(
    config: PreTrainedConfig, depth: int, keep: Sequence[int], *, handled: Collection[str] = ()
) -> dict[str, Any]:
    """The values that the fields of `per_layer_fields` take once only the layers in `keep` are left.

    Args:
        config: the decoder's config, before pruning.
        depth: its number of layers L.
        keep: indices in 0 … L-1 of the layers that stay, ascending.
        handled: as `refuse_unknown`; their values are not in the result.

    Raises:
        ModelError: as `refuse_unknown`.
    """
    fields = per_layer_fields(config, depth, handled=handled)
    new_index = {old: new for new, old in enumerate(keep)}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in LAYER_INDICES:
            values[name] = _renumbered(value, new_index, first=LAYER_INDICES[name])
        elif name in FIRST_LAYERS:
            values[name] = sum(layer < value for layer in keep)
        elif _is_sliced(name, value, depth):
            values[name] = type(value)(value[layer] for layer in keep)
    for name, rewrite in _REWRITES.items():
        if name in fields:
            values |= rewrite(fields, keep)
    return values


def refuse_unknown(config: PreTrainedConfig, depth: int, *, handled: Collection[str] = ()) -> None:
    """Make sure that every field that may depend on the depth is understood.

    Args:
        config: the decoder's config.
        depth: its number of layers L.
        handled: fields of `CANNOT_FOLLOW`, or `per_layer_config`, that the family takes care of itself.

    Raises:
        ModelError: naming the field that is not.
    """
    for name, value in vars(config).items():
        if name in CANNOT_FOLLOW and name not in handled and value:
            raise refusal(config, name, f"ties layers to their position ({name}={value!r})")
        if _looks_per_layer(name, value, depth):
            raise refusal(config, name, f"has one entry per layer ({depth}) and is not a field Shoal knows")
    if getattr(config, "is_heterogeneous", False) and "per_layer_config" not in handled:
        raise refusal(config, "per_layer_config", "gives single layers a config of their own")


def overrides(config: PreTrainedConfig) -> dict[int, dict[str, Any]]:
    """`per_layer_config` as it is saved: layer → the settings it has of its own."""
    saved = config.to_dict().get("per_layer_config") or {}
    return {int(layer): settings for layer, settings in saved.items()}


def kept_overrides(config: PreTrainedConfig, keep: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What `per_layer_config` becomes once only the layers in `keep` are left."""
    present = overrides(config)
    return {new: present[old] for new, old in enumerate(keep) if old in present}


def suspects(config: PreTrainedConfig) -> list[str]:
    """The fields set in `config` that may decide by index how a layer is built."""
    present = vars(config)
    return [name for name in (*ON_BUILD, *sorted(CANNOT_FOLLOW)) if present.get(name)]


def _is_sliced(name: str, value: Any, depth: int) -> bool:
    return name in ONE_PER_LAYER and isinstance(value, list | tuple) and len(value) == depth


def _looks_per_layer(name: str, value: Any, depth: int) -> bool:
    """Whether an unknown field could hold one entry per layer."""
    is_known = name in ONE_PER_LAYER or name in LAYER_INDICES or name in NOT_PER_LAYER or name in _REWRITES
    generic = name.startswith("_") or name.endswith(("token_id", "token_ids", "tokens"))
    return not is_known and not generic and isinstance(value, list | tuple) and depth > 1 and len(value) == depth


def _renumbered(indices: Sequence[int], new_index: Mapping[int, int], *, first: int) -> list[int]:
    """Drop the removed layers from `indices` and give the others their new place."""
    return [new_index[index - first] + first for index in indices if index - first in new_index]


def _listed_dense_layers(fields: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """`decoder_sparse_step`: layer l is sparse if (l + 1) is a multiple and l is not in `mlp_only_layers`."""
    step, only = fields["decoder_sparse_step"], fields.get("mlp_only_layers") or []
    dense = [new for new, old in enumerate(keep) if old in only or (old + 1) % step]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense} if step and step > 1 else {}


def _flat_attention_types(fields: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """`attention_types` of GPT-Neo: `[[kinds, repeats], …]`, from which `attention_layers` is expanded."""
    kinds = fields.get("attention_layers")
    return {"attention_types": [[[kinds[layer] for layer in keep], 1]]} if kinds else {}


_REWRITES: Mapping[str, Callable[[Mapping[str, Any], Sequence[int]], dict[str, Any]]] = {
    "decoder_sparse_step": _listed_dense_layers,
    "attention_types": _flat_attention_types,
}


def refusal(config: PreTrainedConfig, name: str, why: str) -> ModelError:
    """The error that says that the field `name` stands in the way, and why."""
    return ModelError(
        f"layers cannot be removed: the config field {name} {why}",
        where=type(config).__name__,
        fix="audit it, but prune another model, or add a family for it in shoal/models/families",
    )
