"""Carry out a plan: in memory (`pruned`), or as a checkpoint folder (`prune`), verified before it exists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.loading import LoadedModel
    from shoal.schema import Part, Plan

__all__ = ["prune", "prune_folder", "pruned"]


def prune(
    model: LoadedModel, plan: Plan, out: str | os.PathLike[str], *, verify: bool = True, force: bool = False
) -> Path:
    """Write a checkpoint folder without the plan's layers; see `shoal.pruning.on_disk.write_pruned`."""
    from shoal.pruning.on_disk import write_pruned

    return write_pruned(model, plan, out, verify=verify, force=force)


def prune_folder(
    ref: str,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    verify: bool = True,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a checkpoint without the plan's layers, without loading it; see `from_folder.prune_folder`."""
    from shoal.pruning.from_folder import prune_folder as write

    return write(
        ref,
        plan,
        out,
        verify=verify,
        force=force,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )


def pruned(
    model: PreTrainedModel | LoadedModel, layers: Sequence[int] | Plan, *, part: Part = "layer"
) -> AbstractContextManager[PreTrainedModel]:
    """Remove layers, or a part of each, while a `with` block runs; see `shoal.pruning.in_memory.pruned`."""
    from transformers import PreTrainedModel

    from shoal.pruning import in_memory

    return in_memory.pruned(model if isinstance(model, PreTrainedModel) else model.model, layers, part=part)
