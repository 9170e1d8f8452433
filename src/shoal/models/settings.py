"""How a model is loaded."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import field_validator

from shoal.settings import MODEL, Settings

Dtype = Literal["auto", "stored", "float32", "bfloat16", "float16"]


class Placement(Settings):
    """Where a model is loaded, and whether its own code may run."""

    device: Annotated[str, MODEL] = "auto"
    """Device to run on: cpu, cuda, cuda:1, mps; auto is CUDA if there is a GPU, else MPS, else the CPU."""
    trust_remote_code: Annotated[bool, MODEL] = False
    """Run Python code that the model brings along; only for models that you trust."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"[a-z]+(:\d+)?", device):
            raise ValueError(f"{device!r} is not a device; write auto, cpu, mps, cuda or cuda:1")
        return device


class ModelSettings(Placement):
    """How a model is loaded."""

    dtype: Annotated[Dtype, MODEL] = "auto"
    """Precision of the weights: stored is the checkpoint's own; auto is float32 on the CPU, where lower precision is
    slower, and stored elsewhere."""
