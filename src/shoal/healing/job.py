"""What healing is asked for, whether it makes sense, and whether it is done already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.data import fingerprint
from shoal.errors import UsageError
from shoal.healing.settings import HealSettings
from shoal.healing.targets import TARGETS, Target
from shoal.models.lineage import HEAL_FILE
from shoal.progress import Progress
from shoal.pruning.folder import check_target
from shoal.schema import HealRecord, ModelInfo, Plan
from shoal.schema.files import check_same
from shoal.training.settings import Objective, RuntimeOptions

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.tasks import Task

HELD_OUT = 0.05
"""Share of the clips that are not trained on, where no others are given to watch the loss on."""
MOST_HELD_OUT = 64


@dataclass(frozen=True)
class HealingJob:
    """Everything healing is asked for."""

    data: Dataset
    task: Task
    settings: HealSettings
    plan: Plan | None = None
    validation: Dataset | None = None
    out: Path | None = None
    progress: Progress | None = None

    @property
    def target(self) -> Target:
        """What is trained, or computed."""
        return TARGETS[self.settings.target]

    @property
    def objective(self) -> Objective:
        """What is minimised: a target that learns from hidden states does only that, unless it is told otherwise."""
        if self.target.hidden_only and self.settings.objective == Objective():
            return Objective(ce=0.0, hidden=1.0)
        return self.settings.objective

    @property
    def described(self) -> dict[str, Any]:
        """Everything that decides the result, besides model and clips."""
        return {
            **self.settings.method(),
            "target": self.settings.target,
            "input": self.settings.input,
            "plan": self.settings.layers or (None if self.plan is None else self.plan.layers),
            "save_as": self.settings.save,
        }

    @property
    def how(self) -> RuntimeOptions:
        """How the run is carried out, under the name that trackers show."""
        return self.settings.how if self.out is None else self.settings.how.named(f"shoal-heal-{self.out.name}")

    def check(self, source: Path | None = None) -> None:
        """Make sure that its parts go together, and with what lies in `out`, before any model is loaded.

        Args:
            source: the folder of the model, if it has one.

        Raises:
            UsageError: they do not.
        """
        target, objective = self.target, self.objective
        if self.settings.layers is not None and self.plan is not None:
            raise UsageError(
                "a plan says itself what to remove", where="--layers", fix="give one of --plan and --layers"
            )
        if target.trained and not (objective.needs_decoder or objective.ctc):
            raise UsageError("no term has a weight, so there is nothing to learn", fix="give --ce, --kl or --hidden")
        if self.settings.save == "adapters" and not target.adapts:
            raise UsageError(
                f"{target.name} changes whole weights, which adapters do not hold", where="--save", fix="use merged"
            )
        if self.settings.save == "adapters" and (self.plan is not None or self.settings.layers is not None):
            raise UsageError(
                "adapters lie beside a pruned checkpoint, and here there is none",
                where="--save adapters",
                fix="write it with shoal prune first, and heal that",
            )
        if self.out is not None:
            check_target(self.out, source, force=True)
            if finished(None, self) is None:
                check_target(self.out, None, self.settings.force)

    def split(self) -> tuple[list[Row], list[Row]]:
        """Rows to train on, and rows of the same data to watch the loss on; the same in every run."""
        rows = self.data.rows
        if self.validation is not None:
            return list(rows), []
        count = min(MOST_HELD_OUT, max(round(HELD_OUT * len(rows)), int(len(rows) > 1)))
        # By id, so that the order of the manifest does not matter.
        ids = sorted(self.data.ids())
        chosen = set(np.random.default_rng([self.settings.seed, 7]).permutation(ids)[:count].tolist())
        return [row for row in rows if row.id not in chosen], [row for row in rows if row.id in chosen]


def finished(model: ModelInfo | None, job: HealingJob) -> HealRecord | None:
    """The record in `job.out` if this very healing of this very model is done already; None if there is none.

    Args:
        model: before healing; None for any model.
        job: what is asked for.

    Raises:
        UsageError: another healing lies there, and it shall not be replaced.
    """
    if job.out is None or not (job.out / HEAL_FILE).is_file():
        return None
    record = HealRecord.load(job.out / HEAL_FILE)
    before = {
        "model": record.source_fingerprint or record.model.fingerprint,
        "task": record.task,
        "clips": record.data.fingerprint,
        **record.settings,
    }
    now = {
        "model": before["model"] if model is None else model.fingerprint,
        "task": job.task.name,
        "clips": fingerprint(job.split()[0]),
        **job.described,
    }
    return record if check_same(job.out, "a checkpoint healed", before, now, force=job.settings.force) else None
