"""Carry out a plan: in memory (`pruned`), or as a checkpoint folder (`prune`), verified before it exists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan

__all__ = ["prune", "pruned"]


def prune(
    model: LoadedModel, plan: Plan, out: str | os.PathLike[str], *, verify: bool = True, force: bool = False
) -> Path:
    """Write a checkpoint folder without the plan's layers; see `shoal.prune.on_disk.write_pruned`."""
    from shoal.prune.on_disk import write_pruned

    return write_pruned(model, plan, out, verify=verify, force=force)


def pruned(
    model: PreTrainedModel | LoadedModel, layers: Sequence[int] | Plan
) -> AbstractContextManager[PreTrainedModel]:
    """Remove layers while a `with` block runs; see `shoal.prune.in_memory.pruned`."""
    from transformers import PreTrainedModel

    from shoal.prune import in_memory

    return in_memory.pruned(model if isinstance(model, PreTrainedModel) else model.model, layers)
