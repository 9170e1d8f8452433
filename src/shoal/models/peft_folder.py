"""Folders in PEFT's format: an adapter beside the weights of a whole model, or alone, is found and put in.

The stock `from_pretrained` loads both, and then reports on the adapter only: that weights of the model are missing goes
unnoticed. And the stock `save_pretrained` writes such a model with the adapter's names, so that it does not load
again. Here the model is loaded without the adapter, and the adapter after it; merged, there is one plain model.

An adapter alone in its folder names its base model. It is put in as `PeftModel.from_pretrained` does it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.lora import merge, unusable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NAMES = "_weight_conversions"
"""Where a model keeps how its tensors are called on disk; loading an adapter puts the adapter's names there."""


def has_adapter(folder: Path) -> bool:
    """Whether an adapter lies in `folder` beside a whole model."""
    return (folder / CONFIG).is_file() and (folder / "config.json").is_file()


def is_adapter_alone(folder: Path) -> bool:
    """Whether there is an adapter in `folder` and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, ref: str) -> str:
    """The model that the adapter alone in `folder` was made for: a folder, a Hub id or `pkg:NAME`.

    Raises:
        ModelError: its config names none, or cannot be read.
    """
    try:
        base = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        beside = folder / base
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            "the adapter does not say which model it was made for",
            where=f"{ref} ({CONFIG})",
            fix="set base_model_name_or_path to that model's folder or id",
        ) from None
    if not base or beside.resolve() == folder.resolve():
        raise ModelError(
            f"the adapter names {base!r} as its base, which is no model",
            where=f"{ref} ({CONFIG})",
            fix="set base_model_name_or_path to the folder or id of the model it was made for",
        )
    return str(beside) if beside.is_dir() else str(base)


def apply_adapter(model: PreTrainedModel, folder: Path, ref: str) -> None:
    """Put the adapter alone in `folder` into its base model, and merge it.

    Args:
        model: the base; changed in place.
        folder: where the adapter lies.
        ref: what the user calls the adapter, for messages.

    Raises:
        ModelError: it does not fit the base, is not whole, or cannot be merged.
    """
    from peft import PeftModel

    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"the adapter has no {WEIGHTS}", where=ref, fix="save it again, as safetensors")
    try:
        with warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
            # Only this call says what is missing.
            report = adapted.load_adapter(str(folder), "default", torch_device="cpu")
    except Exception as error:  # PEFT raises many kinds; all mean: this adapter is not one for this model
        raise _unfit(ref, f"{type(error).__name__}: {str(error)[:300]}") from None
    if problem := _problem(report):
        raise _unfit(ref, problem)
    merge(model, ref, replace=True)


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A folder of links to all that is in `folder` but the adapter, while the block runs."""
    with TemporaryDirectory(prefix="shoal-base-") as directory:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                Path(directory, path.name).symlink_to(path.resolve(), target_is_directory=path.is_dir())
        yield Path(directory)


def add_adapter(model: PreTrainedModel, folder: Path, ref: str) -> PreTrainedModel:
    """Load the adapter in `folder` into `model`, where it is active then, as the stock class has it.

    Args:
        model: the model, without the adapter; changed in place.
        folder: where the adapter lies.
        ref: what the user calls the model, for messages.

    Returns:
        `model`.

    Raises:
        ModelError: the adapter does not fit.
    """
    names = vars(model).get(NAMES)
    report = model.load_adapter(str(folder))
    vars(model).pop(NAMES, None)
    if names is not None:
        setattr(model, NAMES, names)
    if problem := _problem(report):
        raise unusable(ref, problem)
    return model


def _problem(report: Any) -> str:
    """What a loading report says against an adapter; nothing if all of it found its place."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, getattr(report, kind, None) or [])):
            return f"{len(keys)} of its weights are {kind[:-5]}, such as {keys[0]}"
    return ""


def _unfit(ref: str, problem: str) -> ModelError:
    return ModelError(
        f"the adapter does not fit its base model ({problem})",
        where=ref,
        fix=f"check base_model_name_or_path in its {CONFIG}",
    )
