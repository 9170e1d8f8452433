"""Which weights a model has, told by samples of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module, samples: int = 64) -> str:
    """SHA-256 over names, shapes and `samples` evenly spaced values of every tensor of the state dict.

    The same weights are another model where the encoder hears the clip instead of its whole window.
    """
    heard = getattr(getattr(model, "config", None), "encoder_window", "full")
    return _digest(model.state_dict(), samples, torch.float32, "" if heard == "full" else heard)


def base_fingerprint(decoder: nn.Module, samples: int = 64) -> str:
    """The same of a model without its low-rank updates, whether it was loaded in float32 or in bfloat16.

    Empty in float16: values that were rounded to that are not rounded to the same bfloat16.
    """
    tensors = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in decoder.state_dict().items()
        if ".lora_" not in name
    }
    if any(tensor.dtype == torch.float16 for tensor in tensors.values()):
        return ""
    return _digest(tensors, samples, torch.bfloat16)


def _digest(tensors: Mapping[str, Tensor], samples: int, dtype: torch.dtype, note: str = "") -> str:
    digest = hashlib.sha256(note.encode())
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // samples)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(flat[::step][:samples].to(dtype).float().cpu().numpy().tobytes())
    return digest.hexdigest()
