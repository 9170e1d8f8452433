"""Int8 with one float16 scale per row: what makes a file of adapters small.

A two-dimensional tensor `name` is stored as int8 under its name and its scales, (rows,) float16, under
`name_scale`; weight = int8 · scale. Everything else is stored as float16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = "_scale"
_LARGEST = 127


def compress(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compress every tensor; a weight's error is about half its row's scale at most."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            small[name], small[name + SCALE] = _compress_rows(tensor.float())
        else:
            small[name] = tensor.to(torch.float16)
    return small


def _compress_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = (weight.abs().amax(1) / _LARGEST).to(torch.float16)
    # A row whose scale vanishes in float16 is stored as zeros.
    steps = weight / scale.float().where(scale > 0, torch.ones(()))[:, None]
    return steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale


def expand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `compress`, in float32; tensors that were not compressed only change their type."""
    scales = {name for name in tensors if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors}
    full = {name: tensor.float() for name, tensor in tensors.items() if name not in scales}
    for name in scales:
        full[name.removesuffix(SCALE)] *= tensors[name].float()[:, None]
    return full
