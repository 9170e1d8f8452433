"""Load a model by its class, and be sure that all of it came from the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from shoal.errors import ModelError
from shoal.models.peft_folder import add_adapter, has_adapter, without_adapter


def reported(auto_class: Any, path: Path, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and transformers' loading report."""
    if not hasattr(auto_class, "load_speakers"):
        loaded: tuple[PreTrainedModel, dict[str, Any]] = auto_class.from_pretrained(
            path, output_loading_info=True, **options
        )
        return loaded
    # Its own `from_pretrained` loads the voices too, and takes the pair of model and report for the model.
    general: Any = PreTrainedModel.from_pretrained
    model, report = general.__func__(auto_class, path, output_loading_info=True, **options)
    model.load_speakers(path / "spk_dict.pt")
    return model, report


def whole(auto_class: Any, path: Path, ref: str, *, forgiven: Sequence[str] = (), **options: Any) -> PreTrainedModel:
    """Load, and refuse a checkpoint whose missing layers would silently get random weights.

    Args:
        auto_class: a class with `from_pretrained`.
        path: the folder.
        ref: what the user calls the model, for messages.
        forgiven: ends of names of weights that may be missing.
        options: of `from_pretrained`.

    Raises:
        ModelError: weights are missing, or of another shape.
    """
    if has_adapter(path):
        with without_adapter(path) as base:
            model = whole(auto_class, base, ref, forgiven=forgiven, **options)
        return add_adapter(model, path, ref)
    model, report = reported(auto_class, path, use_safetensors=True, **options)
    for name in ("missing_keys", "mismatched_keys"):
        keys = sorted(key for key in map(str, report.get(name) or []) if not key.endswith(tuple(forgiven)))
        if keys:
            raise ModelError(
                f"{len(keys)} weights are {name.removesuffix('_keys')}, such as {keys[0]}",
                where=ref,
                fix="they would be random; check num_hidden_layers in config.json against the weights",
            )
    return model
