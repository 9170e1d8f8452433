"""Ablation: what the task truly loses without a candidate, over a data set, with or without a race."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoal.errors import UsageError
from shoal.measurement.blocks import block_candidates
from shoal.measurement.importance import ImportanceSums, refuse_bad
from shoal.measurement.metric_types import ImportanceMetric, ImportanceOptions, ImportanceRequest, Quantity
from shoal.measurement.racing import RISK, Race, rounds_of
from shoal.schema import PARTS, Part
from shoal.statistics import Floats, Ints
from shoal.terms import Candidate

if TYPE_CHECKING:
    from shoal.data import Row
    from shoal.measurement.ablation_losses import Ablation, BatchLosses
    from shoal.models.batch import PreparedBatch


def measure(request: ImportanceRequest) -> list[ImportanceSums]:
    """Loss and KL of every part that is asked for, and the task's own score by decoding if that is asked for."""
    options, depth = request.options, len(request.model.layers)
    items: list[ImportanceSums] = []
    for part in options.parts:
        # Parts are of single layers.
        candidates = block_candidates(depth, options.block_sizes if part == "layer" else (1,))
        losses = ablate(request, candidates, part)
        items += losses
        if options.decode and request.input == "speech":
            from shoal.measurement.ablation_by_decoding import decode_without

            items.append(decode_without(request, losses[0]))
    return items


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
    ablation = _ablation(request, part)
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
    for rows in _rounds(request.data.rows, options):
        alive = usable if race is None else [usable[index] for index in race.alive]
        before = len(table.ids)
        for batch in request.batches(rows):
            table.add(ablation.measure(batch, [candidates[index] for index in alive]), alive)
        done += len(rows)
        if request.progress is not None:
            request.progress("ablation", done, total)
        if race is not None and len(table.ids) > before:
            loss, counts = table.since(before)
            race.add(loss[:, alive], counts)
        if race is not None and len(race.alive) == 1:
            break
    return table.sums(ablation, candidates, refused)


def _ablation(request: ImportanceRequest, part: Part) -> Ablation:
    from shoal.measurement.ablation_losses import Ablation

    return Ablation(request.model, scope=request.options.scope, part=part)


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
    _loss: list[Floats] = field(default_factory=list)
    _kl: list[Floats] = field(default_factory=list)
    _full: list[Floats] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)

    def add(self, losses: BatchLosses, columns: Sequence[int]) -> None:
        """A batch that was measured without the candidates at `columns`."""
        self.ids += losses.ids
        self._loss.append(self._spread(losses.loss - losses.full[:, None], columns))
        self._kl.append(self._spread(losses.kl, columns))
        self._full.append(losses.full)
        self._counts.append(losses.counts)

    def _spread(self, values: Floats, columns: Sequence[int]) -> Floats:
        whole = np.full((len(values), self.width), np.nan)
        whole[:, list(columns)] = np.where(np.isfinite(values), values, np.inf)
        return whole

    def since(self, first: int) -> tuple[Floats, Ints]:
        """Losses and counts of the clips from `first` on."""
        return np.concatenate(self._loss)[first:], np.concatenate(self._counts)[first:]

    def sums(
        self, ablation: Ablation, candidates: Sequence[Candidate], refused: dict[int, str]
    ) -> list[ImportanceSums]:
        """Of both quantities."""
        if not self.ids:
            raise UsageError("no clip is left to measure", fix="see the skipped rows above")
        quantities: tuple[tuple[str, list[Floats], Floats | None], ...] = (
            ("loss", self._loss, np.concatenate(self._full)),
            ("kl", self._kl, None),
        )
        return [
            refuse_bad(
                ImportanceSums(
                    metric="ablation",
                    quantity=quantity,
                    scope=ablation.scope,
                    part=ablation.part,
                    candidates=tuple(candidates),
                    utterances=tuple(self.ids),
                    values=np.concatenate(values),
                    counts=np.concatenate(self._counts),
                    full=full,
                    refused=dict(refused),
                    method=ablation.method,
                )
            )
            for quantity, values, full in quantities
        ]


class LossMeasure:
    """The mean rise of the task loss without each candidate, for strategies that measure again and again.

    The clips are encoded and embedded once.

    Args:
        request: on what; of its options the scope and the batch size count.
        part: what of the layers goes.
    """

    def __init__(self, request: ImportanceRequest, part: Part = "layer") -> None:
        self._ablation = _ablation(request, part)
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


def _depends_on(options: ImportanceOptions) -> list[object]:
    sizes = None if options.block_sizes is None else sorted(set(options.block_sizes))
    return [sizes, options.parts, options.race, options.seed if options.race else 0, options.decode]


METRIC = ImportanceMetric(
    "ablation",
    (
        Quantity("loss", "rise of the loss", noun="Loss"),
        Quantity("kl", "KL from the full model", noun="KL"),
        Quantity("score", "rise of {unit}"),
    ),
    measure,
    parts=PARTS,
    measured=True,
    extras=frozenset({"race", "decode"}),
    depends_on=_depends_on,
    of_any_layers=LossMeasure,
)
