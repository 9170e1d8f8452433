"""The record of a checkpoint's tensors, against the tensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import deserialize

from shoal.pruning.sharded import TENSORS_FILE, TensorDigests


def digests_of(path: Path) -> dict[str, str]:
    """Name → SHA-256 of the bytes of every tensor, read by another library."""
    return {name: hashlib.sha256(tensor["data"]).hexdigest() for name, tensor in deserialize(path.read_bytes())}


def changed_tensors(folder: Path) -> list[str]:
    """The tensors of a checkpoint pruned on disk that are not what its record says; `file: tensor`."""
    changed = []
    for name, expected in TensorDigests.load(folder / TENSORS_FILE).files.items():
        present = digests_of(folder / name)
        tensors = sorted({*present, *expected})
        changed += [f"{name}: {tensor}" for tensor in tensors if present.get(tensor) != expected.get(tensor)]
    return changed
