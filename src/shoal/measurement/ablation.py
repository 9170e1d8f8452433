"""Ablation over a data set, with or without a race, and again and again for a search."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shoal.errors import UsageError
from shoal.measurement.ablation_losses import Ablation, BatchLosses
from shoal.measurement.importance import ImportanceSums, refuse_bad
from shoal.measurement.metric_types import ImportanceOptions, ImportanceRequest
from shoal.measurement.racing import RISK, Race, rounds_of
from shoal.progress import report_progress
from shoal.statistics import Floats
from shoal.terms import Candidate, Part

if TYPE_CHECKING:
    from shoal.data import Row
    from shoal.models.batch import PreparedBatch


def ablate(
    request: ImportanceRequest, candidates: Sequence[Candidate], part: Part = "layer", *, risk: float = RISK
) -> list[ImportanceSums]:
    """What the task loses without each candidate: sums of `loss` and of `kl`, clip by clip.

    In a race candidates that are surely worse than the best one so far are dropped, and it stops when only that is
    left; what was not measured by then stays so.

    Args:
        request: on what.
        candidates: layers to go without, each ascending.
        part: what of the layers goes.
        risk: chance that a race drops the best one.

    Raises:
        MeasureError: the full model's loss is not finite.
        ModelError: the loss of this class is not known.
        UsageError: no clip is left, or no candidate can be removed.
    """
    options, total = request.options, len(request.data.rows)
    ablation = Ablation(request.model, scope=options.scope, part=part)
    refused = ablation.refused(candidates)
    usable = [index for index in range(len(candidates)) if index not in refused]
    if not usable:
        raise UsageError(
            f"none of {len(candidates)} candidates can be removed ({next(iter(refused.values()))})",
            where=request.model.ref,
            fix="measure other blocks",
        )
    table = _LossTable(len(candidates))
    race = Race(len(usable), len(rounds_of(total)), risk) if options.race else None
    done = 0
    report_progress(request.progress, "ablation", 0, total)
    for rows in _rounds(request.data.rows, options):
        alive = usable if race is None else [usable[index] for index in race.alive]
        before = len(table.ids)
        for batch in request.batches(rows):
            table.add(ablation.measure(batch, [candidates[index] for index in alive]), alive)
        done += len(rows)
        report_progress(request.progress, "ablation", done, total)
        if race is not None and len(table.ids) > before:
            race.add(table.column("loss")[before:, alive], table.column("counts")[before:])
        if race is not None and len(race.alive) == 1:
            break
    return table.sums(ablation, candidates, refused)


def _rounds(rows: Sequence[Row], options: ImportanceOptions) -> Iterable[list[Row]]:
    """The rows in the rounds of a race, drawn at random: a manifest's order goes by speaker. Else one round."""
    if not options.race:
        return [list(rows)]
    drawn = random.Random(options.seed).sample(list(rows), len(rows))
    sizes = rounds_of(len(rows))
    return [drawn[sum(sizes[:index]) : sum(sizes[: index + 1])] for index in range(len(sizes))]


@dataclass
class _LossTable:
    """Clips by candidates, as far as measured; infinity stands for a value that is not finite, NaN for none."""

    width: int
    ids: list[str] = field(default_factory=list)
    _batches: list[BatchLosses] = field(default_factory=list)

    def add(self, losses: BatchLosses, columns: Sequence[int]) -> None:
        """A batch that was measured without the candidates at `columns`."""
        self.ids += losses.ids
        rise = self._spread(losses.loss - losses.full[:, None], columns)
        self._batches.append(replace(losses, loss=rise, kl=self._spread(losses.kl, columns)))

    def _spread(self, values: Floats, columns: Sequence[int]) -> Floats:
        whole = np.full((len(values), self.width), np.nan)
        whole[:, list(columns)] = np.where(np.isfinite(values), values, np.inf)
        return whole

    def column(self, name: Literal["full", "loss", "kl", "counts"]) -> Any:
        """One field of all batches; `loss` is the rise of the loss."""
        return np.concatenate([getattr(batch, name) for batch in self._batches])

    def sums(
        self, ablation: Ablation, candidates: Sequence[Candidate], refused: dict[int, str]
    ) -> list[ImportanceSums]:
        """Of both quantities."""
        if not self.ids:
            raise UsageError("no clip is left to measure", fix="see the skipped rows above")
        loss = ImportanceSums(
            metric="ablation",
            quantity="loss",
            scope=ablation.scope,
            part=ablation.part,
            candidates=tuple(candidates),
            utterances=tuple(self.ids),
            values=self.column("loss"),
            counts=self.column("counts"),
            full=self.column("full"),
            refused=dict(refused),
            method=ablation.method,
        )
        return [refuse_bad(loss), refuse_bad(replace(loss, quantity="kl", values=self.column("kl"), full=None))]


class LossMeasure:
    """The mean rise of the task loss without each candidate, for strategies that measure again and again.

    The clips are encoded and embedded once.

    Args:
        request: on what; of its options the scope and the batch size count.
        part: what of the layers goes.
    """

    def __init__(self, request: ImportanceRequest, part: Part = "layer") -> None:
        self._ablation = Ablation(request.model, scope=request.options.scope, part=part)
        self._batches: list[PreparedBatch] = list(request.batches())
        if not self._batches:
            raise UsageError("no clip is left to measure", fix="see the skipped rows above")
        self.refused: dict[Candidate, str] = {}
        """Candidates without a value, and why."""

    def __call__(self, candidates: Sequence[Candidate]) -> Floats:
        """Nats a token (C,); NaN where a candidate cannot be removed or its loss is not finite.

        Raises:
            MeasureError: the full model's loss is not finite.
        """
        refused = self._ablation.refused(candidates)
        usable = [index for index in range(len(candidates)) if index not in refused]
        self.refused |= {candidates[index]: reason for index, reason in refused.items()}
        values = np.full(len(candidates), np.nan)
        if usable:
            values[usable] = self._measured([candidates[index] for index in usable])
        return values

    def _measured(self, candidates: Sequence[Candidate]) -> Floats:
        losses = [self._ablation.measure(batch, candidates) for batch in self._batches]
        rises = np.concatenate([batch.loss - batch.full[:, None] for batch in losses])
        tokens = sum(int(batch.counts.sum()) for batch in losses)
        finite = np.isfinite(rises).all(0)
        for index in np.flatnonzero(~finite).tolist():
            self.refused[candidates[index]] = "its loss is not finite"
        return np.where(finite, rises.sum(0) / tokens, np.nan)
