"""A low-rank adapter that lies beside the weights of a whole model: loaded after them, and merged into them.

The stock `from_pretrained` loads both, and then reports on the adapter only: that weights of the model are missing goes
unnoticed. And the stock `save_pretrained` writes such a model with the adapter's names, so that it does not load
again. Here the model is loaded without the adapter, and the adapter after it; merged, there is one plain model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
NAMES = "_weight_conversions"
"""Where a model keeps how its tensors are called on disk; loading an adapter puts the adapter's names there."""


def has_adapter(folder: Path) -> bool:
    """Whether an adapter lies in `folder` beside a whole model."""
    return (folder / CONFIG).is_file() and (folder / "config.json").is_file()


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A folder of links to all that is in `folder` but the adapter, while the block runs."""
    with TemporaryDirectory(prefix="shoal-base-") as place:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                Path(place, path.name).symlink_to(path.resolve(), target_is_directory=path.is_dir())
        yield Path(place)


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
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, getattr(report, kind, None) or [])):
            raise _refusal(ref, f"{len(keys)} of its weights are {kind[:-5]}, such as {keys[0]}")
    return model


def merge_adapter(model: PreTrainedModel, ref: str) -> None:
    """Put every adapted module, with the adapter's part added to its weights, back in the adapter's place.

    Raises:
        ModelError: the adapter cannot be merged.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            raise _refusal(ref, f"it replaces whole modules ({name})")
        if isinstance(module, BaseTunerLayer):
            try:
                module.merge(safe_merge=True)
            except (ValueError, NotImplementedError) as error:
                raise _refusal(ref, f"it cannot be merged ({error})") from error
            model.set_submodule(name, module.get_base_layer())
    _forget(model)


def _forget(model: Any) -> None:
    """Let the model be one that never had an adapter: Granite Speech says in its config whether it has one."""
    model._hf_peft_config_loaded = False
    vars(model).pop("peft_config", None)
    if "has_lora_adapter" in vars(model.config):
        model.config.has_lora_adapter = False


def _refusal(ref: str, what: str) -> ModelError:
    return ModelError(
        f"the adapter beside its weights cannot be used: {what}",
        where=ref,
        fix="merge it into the weights with the library it was made with, or move it away",
    )
