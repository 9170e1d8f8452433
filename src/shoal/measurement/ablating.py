"""Ablation over a data set: which candidates, on which clips, with or without a race."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoal.decoder.batches import prepared_batches
from shoal.errors import UsageError
from shoal.measurement.ablation import Ablation, BatchLosses
from shoal.measurement.blocks import block_layers
from shoal.measurement.importance import Floats, ImportanceSums, Ints, refuse_bad
from shoal.measurement.racing import RISK, Race, rounds_of
from shoal.progress import Progress
from shoal.schema.words import Candidate

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind, Part, Quantity, Scope
    from shoal.tasks import Task


def block_candidates(depth: int, sizes: Sequence[int] | None = None) -> list[Candidate]:
    """All blocks of the given sizes, the smallest size first; default every size 1 … L-1.

    Raises:
        UsageError: a size that leaves no layer, or is none.
    """
    wanted = set(range(1, depth) if sizes is None else sizes)
    if bad := sorted(size for size in wanted if not 1 <= size < depth):
        raise UsageError(
            f"a block of {bad[0]} layers of {depth}",
            where="--block-sizes",
            fix=f"give sizes of 1 to {depth - 1}",
        )
    return [layers for layers in block_layers(depth) if len(layers) in wanted]


def ablate(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    kind: InputKind,
    candidates: Sequence[Candidate],
    *,
    scope: Scope = "text",
    part: Part = "layer",
    batch_size: int = 16,
    race: bool = False,
    risk: float = RISK,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[ImportanceSums]:
    """What the task loses without each candidate: loss and KL, clip by clip.

    Args:
        model: unpruned.
        data: the clips.
        task: gives prompt and response.
        kind: what stands in the audio slot.
        candidates: layers to go without, each ascending.
        scope: whose tokens the loss is taken over.
        part: what of the layers goes.
        batch_size: clips a forward pass.
        race: drop candidates that are surely worse than the best one so far, and stop when only that is left; what was
            not measured by then stays so.
        risk: chance that a race drops the best one.
        seed: of the order of the clips in a race.
        progress: called with ("ablation", clips done, in all).

    Returns:
        Sums of `loss` and of `kl`.

    Raises:
        MeasureError: the full model's loss is not finite.
        ModelError: the loss of this class is not known.
        UsageError: no clip is left, or no candidate can be removed.
    """
    ablation = Ablation(model, scope=scope, part=part)
    refused = ablation.refused(candidates)
    usable = [place for place in range(len(candidates)) if place not in refused]
    if not usable:
        raise UsageError(
            f"none of {len(candidates)} candidates can be removed ({next(iter(refused.values()))})",
            where=model.ref,
            fix="measure other blocks",
        )
    taken = _Taken(len(candidates))
    runner = Race(len(usable), len(rounds_of(len(data.rows))), risk) if race else None
    done, total = 0, len(data.rows)
    for rows in _rounds(data.rows, race, seed):
        alive = usable if runner is None else [usable[place] for place in runner.alive]
        before = len(taken.ids)
        for batch in prepared_batches(model, data, task, kind, batch_size, rows=rows):
            taken.add(ablation.measure(batch, [candidates[place] for place in alive]), alive)
        done += len(rows)
        if progress is not None:
            progress("ablation", done, total)
        if runner is not None and len(taken.ids) > before:
            loss, counts = taken.since(before)
            runner.add(loss[:, alive], counts)
        if runner is not None and len(runner.alive) == 1:
            break
    return taken.finish(candidates, refused, scope, part, ablation.method)


def _rounds(rows: Sequence[Row], race: bool, seed: int) -> Iterable[list[Row]]:
    """The rows in the rounds of a race, drawn at random: a manifest's order goes by speaker. Else one round."""
    if not race:
        return [list(rows)]
    drawn = random.Random(seed).sample(list(rows), len(rows))
    sizes = rounds_of(len(rows))
    return [drawn[sum(sizes[:place]) : sum(sizes[: place + 1])] for place in range(len(sizes))]


@dataclass
class _Taken:
    """What has been measured so far; infinity stands for a value that is not finite, NaN for none."""

    width: int
    ids: list[str] = field(default_factory=list)
    _loss: list[Floats] = field(default_factory=list)
    _kl: list[Floats] = field(default_factory=list)
    _full: list[Floats] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)

    def add(self, losses: BatchLosses, places: Sequence[int]) -> None:
        self.ids += losses.ids
        self._loss.append(self._spread(losses.loss - losses.full[:, None], places))
        self._kl.append(self._spread(losses.kl, places))
        self._full.append(losses.full)
        self._counts.append(losses.counts)

    def _spread(self, values: Floats, places: Sequence[int]) -> Floats:
        whole = np.full((len(values), self.width), np.nan)
        whole[:, list(places)] = np.where(np.isfinite(values), values, np.inf)
        return whole

    def since(self, first: int) -> tuple[Floats, Ints]:
        return np.concatenate(self._loss)[first:], np.concatenate(self._counts)[first:]

    def finish(
        self,
        candidates: Sequence[Candidate],
        refused: dict[int, str],
        scope: Scope,
        part: Part,
        method: str,
    ) -> list[ImportanceSums]:
        if not self.ids:
            raise UsageError("no clip is left to measure", fix="see the skipped rows above")
        quantities: tuple[tuple[Quantity, list[Floats], Floats | None], ...] = (
            ("loss", self._loss, np.concatenate(self._full)),
            ("kl", self._kl, None),
        )
        return [
            refuse_bad(
                ImportanceSums(
                    "ablation",
                    quantity,
                    scope,
                    part,
                    tuple(candidates),
                    tuple(self.ids),
                    np.concatenate(values),
                    np.concatenate(self._counts),
                    full,
                    dict(refused),
                    method=method,
                )
            )
            for quantity, values, full in quantities
        ]


class LossMeasure:
    """The mean rise of the task loss without each candidate, for strategies that measure again and again.

    The clips are encoded and embedded once.

    Args:
        loaded: unpruned.
        data: the clips.
        task: gives prompt and response.
        input: what stands in the audio slot.
        scope: whose tokens the loss is taken over.
        part: what of the layers goes.
        batch_size: clips a forward pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        data: Dataset,
        task: Task,
        *,
        input: InputKind = "speech",
        scope: Scope = "text",
        part: Part = "layer",
        batch_size: int = 16,
    ) -> None:
        self._ablation = Ablation(loaded, scope=scope, part=part)
        self._batches: list[PreparedBatch] = list(prepared_batches(loaded, data, task, input, batch_size))
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
        usable = [place for place in range(len(candidates)) if place not in refused]
        self.refused |= {candidates[place]: reason for place, reason in refused.items()}
        values = np.full(len(candidates), np.nan)
        if usable:
            values[usable] = self._measured([candidates[place] for place in usable])
        return values

    def _measured(self, candidates: Sequence[Candidate]) -> Floats:
        parts = [self._ablation.measure(batch, candidates) for batch in self._batches]
        rises = np.concatenate([part.loss - part.full[:, None] for part in parts])
        tokens = sum(int(part.counts.sum()) for part in parts)
        finite = np.isfinite(rises).all(0)
        for place in np.flatnonzero(~finite).tolist():
            self.refused[candidates[place]] = "its loss is not finite"
        return np.where(finite, rises.sum(0) / tokens, np.nan)
