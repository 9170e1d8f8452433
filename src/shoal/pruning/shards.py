"""The weights of a checkpoint folder as the stock loader finds them: one file, or an index and its shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from shoal.errors import ModelError
from shoal.models.json_file import read_json_object
from shoal.models.lineage import ADAPTERS_FILE
from shoal.pruning.folder import WEIGHT_SUFFIXES
from shoal.pruning.safetensors_file import NewFile, SafetensorsHeader, TensorEntry, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Shards:
    """The weights of a checkpoint."""

    folder: Path
    files: list[SafetensorsHeader]
    index: dict[str, Any] = field(default_factory=dict)
    """The `metadata` of the index; empty without one."""

    def tensors(self) -> Iterator[tuple[str, TensorEntry]]:
        """Every tensor of every file."""
        for file in self.files:
            yield from file.tensors.items()


def has_weights(folder: Path) -> bool:
    """Whether there are safetensors of a whole model."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def read_shards(folder: Path) -> Shards:
    """Read the headers of a checkpoint's weights.

    Args:
        folder: the checkpoint's folder.

    Raises:
        ModelError: there are no safetensors, one is missing or damaged, or a tensor is there twice.
    """
    if (folder / WEIGHTS).is_file():
        # The stock loader, too, takes the single file where there are both.
        shards = Shards(folder, [read_header(folder / WEIGHTS)])
    elif (folder / INDEX).is_file():
        shards = _indexed(folder)
    else:
        raise _no_weights(folder)
    _check_once(shards)
    return shards


def _indexed(folder: Path) -> Shards:
    index = read_json_object(folder / INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(p, str) for p in weight_map.values()):
        raise ModelError("has no weight_map", where=str(folder / INDEX), fix="fetch or write it again")
    files = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(
                f"names {name}, which is not in the folder", where=str(folder / INDEX), fix="fetch the missing file"
            )
        files[name] = read_header(folder / name)
    for tensor, name in weight_map.items():
        if tensor not in files[name].tensors:
            raise ModelError(
                f"says that {tensor} is in {name}, where it is not",
                where=str(folder / INDEX),
                fix="fetch the index and the shards of one and the same checkpoint",
            )
    metadata = index.get("metadata")
    return Shards(folder, list(files.values()), dict(metadata) if isinstance(metadata, dict) else {})


def _check_once(shards: Shards) -> None:
    seen: dict[str, Path] = {}
    for file in shards.files:
        for name in file.tensors:
            if name in seen:
                raise ModelError(
                    f"{name} is in {seen[name].name} and in {file.path.name}",
                    where=str(shards.folder),
                    fix="remove the shard that does not belong to the checkpoint",
                )
            seen[name] = file.path


def _no_weights(folder: Path) -> ModelError:
    if (folder / ADAPTERS_FILE).is_file():
        return ModelError(
            "holds adapters and names the weights they belong to",
            where=str(folder),
            fix="prune it in memory, which merges them",
        )
    others = sorted(path.name for path in folder.glob("*") if path.suffix in WEIGHT_SUFFIXES)
    return ModelError(
        f"has no {WEIGHTS} and no {INDEX}" + (f", only {others[0]} and the like" if others else ""),
        where=str(folder),
        fix="load the model with transformers and save_pretrained it, which writes safetensors",
    )


def numbered(files: list[NewFile]) -> list[NewFile]:
    """`files` that have something in them, named as the stock loader expects."""
    # Names say how many shards there are, so one that lost all its layers changes the names of all others.
    left = [file for file in files if file.pieces]
    if len(left) == 1:
        return [NewFile(WEIGHTS, left[0].source, left[0].pieces)]
    names = (f"model-{number:05d}-of-{len(left):05d}.safetensors" for number in range(1, len(left) + 1))
    return [NewFile(name, file.source, file.pieces) for name, file in zip(names, left, strict=True)]


def new_index(old: Shards, files: list[NewFile]) -> dict[str, Any]:
    """The index of `files`, which are what is left of `old`; other metadata stay as they were."""
    metadata = {**old.index, "total_size": sum(file.size for file in files)}
    if isinstance(old.index.get("total_parameters"), int):
        before = sum(entry.values for _, entry in old.tensors())
        after = sum(prod(piece.shape) for file in files for piece in file.pieces)
        metadata["total_parameters"] = old.index["total_parameters"] - (before - after)
    weight_map = {piece.name: file.name for file in files for piece in file.pieces}
    return {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
