"""The one training loop: what it is fed, what it minimises, and how it survives being interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.schema import TrainingRecord
    from shoal.training.recipe import Recipe
    from shoal.training.settings import RuntimeOptions

__all__ = ["train"]


def train(
    recipe: Recipe | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] = ".",
    device: str = "cpu",
    dtype: str = "auto",
    force: bool = False,
    how: RuntimeOptions | None = None,
    progress: Progress | None = None,
) -> TrainingRecord | None:
    """Build a SpeechLLM by a recipe, train it, and write its adapters to `out`; running again goes on.

    Args:
        recipe: a recipe, or the path of one.
        out: the folder to make; `shoal.load(out)` loads it.
        data_root: what relative paths of manifests in the recipe are relative to.
        device: where it is trained.
        dtype: of the frozen base weights; `auto` is float32. What is trained is float32.
        force: replace `out` if there is something already.
        how: what changes the time it takes and not the result.
        progress: called with (what, done, total).

    Returns:
        The record; None in all processes but the first of several.

    Raises:
        ShoalError: see `shoal.training.run.run_train`.
    """
    from shoal.training.recipe import Recipe
    from shoal.training.run import TrainingJob, run_train
    from shoal.training.settings import RuntimeOptions

    found = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    job = TrainingJob(
        found, Path(out), Path(data_root), device, dtype, force, how or RuntimeOptions(), progress
    )
    return run_train(job)
