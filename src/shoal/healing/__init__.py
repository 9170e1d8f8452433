"""Train a little after pruning: one file for each target, and what a healed checkpoint says of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.healing.run import HealedModel
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind, Plan
    from shoal.tasks import Task
    from shoal.training.settings import Objective, Optimisation, RuntimeOptions

__all__ = ["heal"]


def heal(
    model: LoadedModel,
    data: Dataset,
    target: str = "joint",
    *,
    task: Task | str = "asr",
    plan: Plan | None = None,
    out: str | os.PathLike[str] | None = None,
    save: Literal["merged", "adapters"] = "merged",
    teacher: str | None = None,
    validation: Dataset | None = None,
    input: InputKind = "speech",
    optimisation: Optimisation | None = None,
    objective: Objective | None = None,
    rank: int = 64,
    alpha: float | None = None,
    dropout: float = 0.05,
    start: Literal["plain", "linear"] = "plain",
    seed: int = 0,
    force: bool = False,
    how: RuntimeOptions | None = None,
    progress: Progress | None = None,
) -> HealedModel:
    """Heal a pruned model; it is changed in place.

    Args:
        model: a checkpoint that Shoal pruned; or, with `plan`, the model to prune first.
        data: what to train on.
        target: what is trained, see `shoal.healing.targets.TARGETS`.
        task: what is asked of the clips, and what the right answer is.
        plan: what to remove first.
        out: the checkpoint folder to make; None keeps the result in memory only. Running again there goes on with an
            unfinished run, and returns a finished one as it is.
        save: `merged` is a whole checkpoint; `adapters` is a PEFT folder for the pruned checkpoint.
        teacher: the unpruned model; default is the one that the plan names.
        validation: clips to watch the loss on; default is a twentieth of `data`, which is then not trained on.
        input: what stands in the audio's place.
        optimisation: steps, batch, rates; default 500 steps of 16 clips.
        objective: what is minimised; default is cross-entropy of the response, and hidden states for `replace`.
        rank: of low-rank updates; this, `alpha` and `dropout` are those of arXiv 2603.05121.
        alpha: their scaling is `alpha / rank`; default is the rank.
        dropout: of their inputs.
        start: begin from the plainly pruned model, or from that model healed by `linear`.
        seed: of draws, dropout and the low-rank updates' start.
        force: replace `out` if there is something already.
        how: what changes the time it takes and not the result.
        progress: called with (what, done, total).

    Returns:
        The healed model in memory with its record, and the folder it was written to.

    Raises:
        ShoalError: see `shoal.healing.run.run_heal`.
    """
    from shoal import tasks
    from shoal.healing.job import HealingJob
    from shoal.healing.run import run_heal
    from shoal.healing.settings import CLIPS, STEPS, HealSettings
    from shoal.training.settings import Objective, Optimisation, RuntimeOptions

    given: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    settings = HealSettings(
        target=target,
        rank=rank,
        **given,
        dropout=dropout,
        optimisation=optimisation or Optimisation(steps=STEPS, clips=CLIPS),
        objective=objective or Objective(),
        start=start,
        seed=seed,
    )
    return run_heal(
        model,
        HealingJob(
            data,
            tasks.get(task) if isinstance(task, str) else task,
            settings,
            input=input,
            plan=plan,
            validation=validation,
            teacher=teacher,
            out=None if out is None else Path(out),
            save_as=save,
            force=force,
            how=how or RuntimeOptions(),
            progress=progress,
        ),
    )
