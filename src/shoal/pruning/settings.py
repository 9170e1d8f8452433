"""What is removed from a checkpoint, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from shoal.models.settings import Dtype, ModelSettings
from shoal.settings import MODEL, CommaSeparated, Settings

Way = Literal["auto", "memory", "disk"]


class PruneLoading(ModelSettings):
    """How the model is loaded, where it is."""

    dtype: Annotated[Dtype, MODEL] = "stored"
    """Precision to load and save in; stored is the checkpoint's own, auto is float32 on the CPU."""


class PruneSettings(Settings):
    """What is removed, and how."""

    plan: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Plan to carry out: a plan.json from shoal select."""
    layers_list: Annotated[tuple[int, ...] | None, CommaSeparated, Parameter(metavar="N,N…")] = None
    """Layers to remove, 0-based, instead of a plan, such as 3,4,5."""
    allow_last: bool = False
    """Allow --layers-list to name the last layer too."""
    how: Way = "auto"
    """Way to prune: memory loads, prunes and saves; disk copies shard by shard without loading; auto takes disk if the
    model does not fit."""
