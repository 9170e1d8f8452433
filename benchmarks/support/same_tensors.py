"""Do two checkpoints hold the same tensors, and the ones that their class expects? One tensor in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

Digest = tuple[str, tuple[int, ...], str]
"""dtype, shape, hash of the bytes."""


def digests(folder: Path) -> dict[str, Digest]:
    """Of every tensor in the folder's safetensors files."""
    return dict(_digests(folder))


def differing(a: dict[str, Digest], b: dict[str, Digest]) -> list[str]:
    """Names that only one has, or that are not the same in both."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def wrong_keys(folder: Path) -> list[str]:
    """Keys and shapes that the stock class for the folder's config does not have, or has and does not find."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def _digests(folder: Path) -> Iterator[tuple[str, Digest]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                value = tensors.get_tensor(name)
                data = hashlib.blake2b(value.contiguous().view(torch.uint8).numpy().data).hexdigest()
                yield name, (str(value.dtype), tuple(value.shape), data)
