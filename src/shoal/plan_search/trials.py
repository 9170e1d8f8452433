"""One split of the clips: plans are decoded on it, scored, and compared with the unpruned model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.errors import ManifestError, UsageError
from shoal.evaluation.decode_systems import SystemsDecoder, header
from shoal.evaluation.empty_references import warn_of_empty_references
from shoal.evaluation.paired_scores import score_rates
from shoal.evaluation.scores.registry import headline
from shoal.evaluation.settings import TokenLimit, limit_of
from shoal.evaluation.significance import PairedBootstrap
from shoal.evaluation.systems import System, open_systems
from shoal.evaluation.utterance_counts import UtteranceCounts, count_outputs
from shoal.evaluation.worst_case import longest_answer
from shoal.plan_search.relative_change import RelativeChange
from shoal.progress import Progress, report_progress
from shoal.schema import Estimate, Plan
from shoal.schema.record import Drawn
from shoal.statistics import Units

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.plan_search.settings import SearchSettings
    from shoal.statistics.arrays import Numbers
    from shoal.tasks import Task


@dataclass(frozen=True)
class Trial:
    """What a plan's outputs are worth."""

    score: Estimate
    change: RelativeChange


@dataclass
class Trials:
    """Decodes on one split what has not been decoded there before.

    Args:
        loaded: the unpruned model.
        data: the clips of the split.
        task: what is asked and how it is scored.
        settings: batch size, token limit, resampling.
        out: folder of the split; raw outputs go to `outputs/`. None keeps them in memory.
        name: of the split, for messages.
        progress: called with (what, clips done, in all).

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """

    loaded: LoadedModel
    data: Dataset
    task: Task
    settings: SearchSettings
    out: Path | None
    name: str
    progress: Progress | None

    def __post_init__(self) -> None:
        limit = TokenLimit(self.settings.max_new_tokens)
        self.metric = headline(self.task)
        self._limit = limit
        self._decoder = SystemsDecoder(self.data, self.task, limit, self.settings.batch_size)
        self._header = header(self.loaded, self.data, self.task, limit)

    def check_varies(self) -> None:
        """Make sure that there is something to resample.

        Raises:
            UsageError: the split has one clip.
        """
        if len(self.data.rows) < 2:
            raise UsageError(
                f"the {self.name} split has one clip only, so how sure a change is cannot be told",
                where="--data",
                fix="give more clips, or take the value alone with --point",
            )

    def run(self, plan: Plan) -> Trial:
        """Decode and score a plan.

        Raises:
            ManifestError: no usable clip or reference, or the unpruned model's score is 0.
            PlanError, ModelError: the model cannot go without these layers.
            FileFormatError: the outputs there were made otherwise.
        """
        _ = self._full
        (system,) = self._open([plan])[1:]
        self._decode(system)
        return self._trial(system)

    @property
    def full(self) -> Estimate:
        """The unpruned model's score."""
        return self._bootstrap.estimate(score_rates(self.metric, self._statistics, self._bootstrap))

    @property
    def drawn(self) -> Drawn:
        """Speakers, or clips, that bounds and tests draw."""
        return Units.of([row.speaker for row in self.data.rows], self.settings.cluster).drawn

    def unchanged(self) -> RelativeChange:
        """Of a plan that says what the unpruned model says."""
        return self._change(self._statistics)

    @cached_property
    def _full(self) -> UtteranceCounts:
        """Counts of the unpruned model."""
        (system,) = self._open(())
        self._decode(system)
        if not self.data.rows:
            raise ManifestError(f"no clip of the {self.name} split is left", fix="see the skipped rows above")
        counts = self._counts(system)
        warn_of_empty_references(counts, self._ids)
        value = float(self.metric.value(counts.statistics[self.metric.name].sum(axis=0, dtype=np.float64)))
        if not math.isfinite(value) or value == 0:
            raise ManifestError(
                f"the unpruned model's {self.metric.name} on the {self.name} split is {value:g},"
                " so nothing can be relative to it",
                fix="give more clips, or look at what it says with shoal evaluate",
            )
        return counts

    def _open(self, plans: Sequence[Plan]) -> list[System]:
        return open_systems(self.loaded, plans, against=None, out=self.out, header=self._header)

    def _decode(self, system: System) -> None:
        count = len(system.removed)
        label = f"transcribe {self.name}, " + (f"{count} removed" if count else "unpruned")

        def report(_: str, done: int, total: int) -> None:
            report_progress(self.progress, label, done, total)

        self._decoder.run([system], report)

    @property
    def _ids(self) -> list[str]:
        """Sorted, so that the same clips give the same draws in whatever order they were decoded."""
        return sorted(row.id for row in self.data.rows)

    def _counts(self, system: System) -> UtteranceCounts:
        return count_outputs(system.outputs.outputs, self._ids, self.task, [self.metric])

    @cached_property
    def _bootstrap(self) -> PairedBootstrap:
        speakers = {row.id: row.speaker for row in self.data.rows}
        return PairedBootstrap.of(self.settings, [speakers[clip] for clip in self._ids])

    @property
    def _statistics(self) -> Numbers:
        return self._full.statistics[self.metric.name]

    @cached_property
    def _longest(self) -> float:
        rows = self.data.rows
        limits = [limit_of(self.loaded, self._limit, row) for row in rows]
        return longest_answer(limits, [row.duration for row in rows], self._full.totals["generated_tokens"])

    def _change(self, statistics: Numbers) -> RelativeChange:
        return RelativeChange.of(self.metric, statistics, self._statistics, self._bootstrap, self._longest)

    def _trial(self, system: System) -> Trial:
        change = self._change(self._counts(system).statistics[self.metric.name])
        return Trial(self._bootstrap.estimate(change.plan), change)
