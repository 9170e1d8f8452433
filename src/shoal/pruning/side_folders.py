"""What lies in the folders inside a checkpoint's folder, and what of it goes with a pruned copy.

See `shoal.pruning.sharded` for what becomes of which file, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.errors import ModelError
from shoal.models.json_file import read_json_object
from shoal.models.meta_model import CONFIG
from shoal.pruning.folder import CARRIED_TENSORS, WEIGHT_SUFFIXES

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def adapter_folders(source: Path) -> list[Path]:
    """The folders in `source`, itself included, that hold a PEFT adapter.

    Raises:
        ModelError: an adapter without safetensors.
    """
    candidates = [source, *(path.parent for path in _files(source) if path.name == ADAPTER_CONFIG)]
    adapters = [path for path in candidates if (path / ADAPTER_CONFIG).is_file()]
    for path in adapters:
        if not (path / ADAPTER_WEIGHTS).is_file():
            raise ModelError(
                f"has {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}",
                where=str(path),
                fix="save the adapter as safetensors",
            )
    return adapters


def files_in_folders(source: Path) -> list[Path]:
    """What is carried over as it is from the folders in `source`, relative to it; adapters are not.

    Raises:
        ModelError: one holds weights about which nothing says what they are.
    """
    return [path.relative_to(source) for path in _files(source) if _is_carried(path, source)]


def _files(source: Path) -> Iterator[Path]:
    """Every file in a folder in `source`, but for hidden ones and copies of the model."""
    own = _architectures(source)
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        if own is not None and _architectures(folder) == own:
            continue
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if not any(part.startswith(".") for part in path.relative_to(source).parts):
                yield path


def _architectures(folder: Path) -> Any:
    path = folder / CONFIG
    return read_json_object(path).get("architectures") if path.is_file() else None


def _is_carried(path: Path, source: Path) -> bool:
    if path.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        return False
    if path.suffix not in WEIGHT_SUFFIXES or path.name in CARRIED_TENSORS:
        return True
    if path.suffix != ".safetensors":
        return False
    if not (path.parent / CONFIG).is_file():
        raise ModelError(
            f"{path.relative_to(source)} holds weights, and nothing says of what",
            where=str(source),
            fix="move it away, or put its config.json beside it",
        )
    return True
