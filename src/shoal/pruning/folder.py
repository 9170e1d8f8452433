"""The folder of a checkpoint: what may be replaced, what is carried over, and how it gets its name.

`shoal.pruning.sharded` says what becomes of which file, and why. A checkpoint is made under a temporary name beside
the final one and renamed last, so under the final name there is either a whole checkpoint or what was there before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.errors import ModelError, UsageError
from shoal.machine import writing
from shoal.models.json_file import read_json_object
from shoal.models.lineage import (
    ADAPTERS_FILE,
    HEAL_FILE,
    PLAN_FILE,
    SOURCE_FILE,
    TRAINING_FILE,
    heal_files,
    numbered,
    plan_files,
)
from shoal.models.meta_model import CONFIG

WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot"})
NOT_CARRIED = frozenset({"config.json", "adapter_config.json", "README.md", ADAPTERS_FILE})
"""Written anew, or true of the unpruned folder only; so are all files of Shoal's own, `shoal-…`, but the history."""
CARRIED_TENSORS = frozenset({"spk_dict.pt"})
"""Data in a weights' format that a stock class reads beside its weights (the voices of Qwen-Omni)."""
LARGEST_SIDE_FILE = 256 * 2**20
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def check_target(out: Path, source: Path | None, force: bool) -> None:
    """Make sure that a checkpoint may be written to `out`.

    Raises:
        UsageError: it is the model's own folder, a file, or (without `force`) not empty.
    """
    if source is not None and out.resolve() == source.resolve():
        raise UsageError("this is the model's own folder", where=str(out), fix="choose another with --out")
    if out.exists() and not out.is_dir():
        raise UsageError("a file with this name exists", where=str(out), fix="choose another with --out")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError("the folder is not empty", where=str(out), fix="choose another, or give --force")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name if the block succeeds, and else disappears."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with writing(out):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            yield draft
            _share_modes(draft)
            put_in_place(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _share_modes(folder: Path) -> None:
    """Give safetensors the mode of their neighbours: the library writes them for their owner alone."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    modes = {path.stat().st_mode for path in files if path.suffix != ".safetensors"}
    for path in files:
        if path.suffix == ".safetensors" and modes:
            path.chmod(max(modes))


def put_in_place(draft: Path, out: Path) -> None:
    """Rename; a folder in the way is moved aside first and comes back if that fails."""
    # No system replaces a folder that is not empty in one step, so there are two renames and a way back.
    aside = out.with_name(f".{out.name}.{os.getpid()}.old")
    occupied = out.exists()
    if occupied:
        out.rename(aside)
    try:
        draft.rename(out)
    except OSError:
        if occupied:
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def carry_over(source: Path, draft: Path, *, adapters: Sequence[Path] = (), plan_follows: bool = True) -> None:
    """Copy what lies beside the weights and was not written anew: chat template, licence, custom code, the history.

    Args:
        source: the folder that the model came from.
        draft: the folder to copy to.
        adapters: the folders of adapters that were put into the model when it was loaded; only their history is copied.
        plan_follows: a new plan comes after those of `source`, which get numbers; else they keep their names.
    """
    for path in sorted(source.iterdir()):
        if is_side_file(path) and not (draft / path.name).exists():
            shutil.copyfile(path, draft / path.name)
    for number, path in enumerate(plan_files(source), start=1):
        shutil.copyfile(path, draft / (numbered(PLAN_FILE, number) if plan_follows else path.name))
    healed = [path for folder in (source, *adapters) for path in heal_files(folder)]
    for number, path in enumerate(healed, start=1):
        shutil.copyfile(path, draft / numbered(HEAL_FILE, number))
    # What is pruned now is noted by whoever prunes it, see `shoal.cards.facts`.
    for name in (TRAINING_FILE,) if plan_follows else (TRAINING_FILE, SOURCE_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, draft / name)


def copy_files(source: Path, draft: Path, files: Sequence[Path]) -> None:
    """Copy `files`, which are relative to `source`."""
    for path in files:
        (draft / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, draft / path)


def is_side_file(path: Path) -> bool:
    """Whether `path` is a file to carry over: no weights, nothing that is true of the unpruned model only."""
    tensors = path.suffix in WEIGHT_SUFFIXES and path.name not in CARRIED_TENSORS
    weights = tensors or path.name.endswith(".index.json")
    ours = path.name in NOT_CARRIED or path.name.startswith(("shoal-", "."))
    return path.is_file() and not weights and not ours and path.stat().st_size <= LARGEST_SIDE_FILE


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
                f"has {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}", where=str(path), fix="save the adapter as safetensors"
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
