"""What is removed from a checkpoint, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator

from shoal.models.settings import Dtype, ModelSettings
from shoal.settings import MODEL, Settings, comma_separated

Way = Literal["auto", "memory", "disk"]


_RANGE = re.compile(r"(\d+)\s*([-–:])\s*(\d+)")
_MOST_LAYERS = 10_000
"""In a range; no decoder has as many."""


def _layers(value: object) -> object:
    """`3,12-15` or `3,12:16` → 3, 12, 13, 14, 15."""
    parts = comma_separated(value)
    if not isinstance(parts, list):
        return value
    return [layer for part in parts for layer in _range(part)]


def _range(text: str) -> Sequence[object]:
    match = _RANGE.fullmatch(text)
    if match is None:
        return [text]
    layers = range(int(match[1]), int(match[3]) + (match[2] != ":"))
    if not 0 < len(layers) <= _MOST_LAYERS:
        raise ValueError(f"{text!r} is no range of layers; write 12-15, or 12:16 for the same")
    return layers


class PruneLoading(ModelSettings):
    """How the model is loaded, where it is."""

    dtype: Annotated[Dtype, MODEL] = "stored"
    """Precision to load and save in; stored is the checkpoint's own, auto is float32 on the CPU."""


class PruneSettings(Settings):
    """What is removed, and how."""

    plan: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Plan to carry out: a plan.json from shoal select."""
    layers_list: Annotated[tuple[int, ...] | None, BeforeValidator(_layers), Parameter(metavar="N,N-N…")] = None
    """Layers to remove, 0-based, instead of a plan, such as 3,4,5 or 12-15; 12:16 is the same without its end."""
    allow_last: bool = False
    """Allow --layers-list to name the last layer too."""
    how: Way = "auto"
    """Way to prune: memory loads, prunes and saves; disk copies shard by shard without loading; auto takes disk if the
    model does not fit."""
