"""What an audit is asked for beside similarity: gradients, ablation, of what, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.decoder.batches import prepared_batches
from shoal.errors import UsageError
from shoal.measurement.ablating import ablate, block_candidates
from shoal.measurement.gradient import gradients
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.settings import METRICS, SIMILARITY, AuditSettings
from shoal.progress import Progress
from shoal.schema import PARTS, InputKind, Part, Scope
from shoal.schema.words import Candidate

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.measurement.sums import SumsFile
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task


@dataclass(frozen=True)
class ImportanceConfig:
    """Which metrics, and of what.

    Args:
        metrics: of `gradient` and `ablation`, in this order.
        sizes: block sizes for ablation; None is every size.
        parts: what of the layers goes in ablation; blocks are of whole layers, parts of single ones.
        scope: whose tokens the loss is taken over.
        race: drop candidates of an ablation that are surely worse.
        decode: the task's own score without each candidate too.
        seed: of the order of the clips in a race.
    """

    metrics: tuple[str, ...] = ()
    sizes: tuple[int, ...] | None = (1,)
    parts: tuple[Part, ...] = ("layer",)
    scope: Scope = "text"
    race: bool = False
    decode: bool = False
    seed: int = 0

    @classmethod
    def of_settings(cls, settings: AuditSettings) -> ImportanceConfig:
        """What an audit's settings ask for."""
        return cls(
            tuple(name for name in METRICS if name in settings.metrics and name not in SIMILARITY),
            settings.block_sizes,
            tuple(part for part in PARTS if part in settings.parts),
            settings.loss_scope,
            settings.race,
            settings.decode,
            settings.seed,
        )

    def check(self, model: LoadedModel, task: Task, inputs: Sequence[InputKind]) -> None:
        """Make sure, before anything is computed, that it can be.

        Raises:
            UsageError: block sizes that the model does not have, a scope without tokens, or decoding without speech.
        """
        if not self.metrics:
            return
        block_candidates(len(model.layers), self.sizes)
        if self.scope == "audio" and "speech" in inputs:
            raise UsageError(
                "audio has no tokens to predict, so there is no loss over it",
                where="--loss-scope",
                fix="use text, or add --input text",
            )
        if self.decode:
            from shoal.evaluation.measures import headline

            headline(task)
            if "speech" not in inputs:
                raise UsageError("there is no speech to decode", where="--decode", fix="leave it out")

    def measure(
        self,
        model: LoadedModel,
        data: Dataset,
        task: Task,
        kind: InputKind,
        metric: str,
        found: SumsFile,
        out: Path | None,
        batch_size: int,
        progress: Progress | None,
    ) -> bool:
        """Measure one metric with one input into `found`, unless it is there; whether anything was measured."""
        name, key = f"{kind}:{metric}", self._key(metric)
        if found.importance_keys.get(name) == key:
            return False
        if metric == "gradient":
            watched = _watched(
                prepared_batches(model, data, task, kind, batch_size), len(data.rows), progress
            )
            items = gradients(model, watched, scope=self.scope)
        else:
            items = self._ablated(model, data, task, kind, out, batch_size, progress)
        others = [item for item in found.importance.get(kind, []) if item.metric != metric]
        found.importance[kind] = others + items
        found.importance_keys[name] = key
        return True

    def of(self, found: SumsFile, kind: InputKind) -> list[ImportanceSums]:
        """What was asked for of what `found` holds."""
        return [item for item in found.importance.get(kind, []) if item.metric in self.metrics]

    def _ablated(
        self,
        model: LoadedModel,
        data: Dataset,
        task: Task,
        kind: InputKind,
        out: Path | None,
        batch_size: int,
        progress: Progress | None,
    ) -> list[ImportanceSums]:
        items = []
        for part in self.parts:
            candidates = self._candidates(part, len(model.layers))
            found = ablate(
                model,
                data,
                task,
                kind,
                candidates,
                scope=self.scope,
                part=part,
                batch_size=batch_size,
                race=self.race,
                seed=self.seed,
                progress=progress,
            )
            items += found
            if self.decode and kind == "speech":
                items.append(self._decoded(model, data, task, found[0], out, batch_size, progress))
        return items

    def _candidates(self, part: Part, depth: int) -> list[Candidate]:
        return block_candidates(depth, self.sizes if part == "layer" else (1,))

    def _decoded(
        self,
        model: LoadedModel,
        data: Dataset,
        task: Task,
        measured: ImportanceSums,
        out: Path | None,
        batch_size: int,
        progress: Progress | None,
    ) -> ImportanceSums:
        """By decoding: all candidates, of a race those that came to the end."""
        from shoal.measurement.ablation_by_decoding import decode_without

        clips = (~np.isnan(measured.values)).sum(0)
        refused = dict(measured.refused)
        for place in range(len(measured.candidates)):
            if clips[place] < len(measured.utterances):
                refused.setdefault(place, "dropped by the race, so not decoded")
        return decode_without(
            model,
            data,
            task,
            measured.candidates,
            refused=refused,
            part=measured.part,
            out=None if out is None else out / "ablation",
            batch_size=batch_size,
            progress=progress,
        )

    def _key(self, metric: str) -> str:
        """What the measurement depends on beside the audit itself."""
        about: list[object] = [metric, self.scope]
        if metric == "ablation":
            sizes = None if self.sizes is None else sorted(set(self.sizes))
            about += [sizes, self.parts, self.race, self.seed if self.race else 0, self.decode]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _watched(
    batches: Iterable[PreparedBatch], total: int, progress: Progress | None
) -> Iterator[PreparedBatch]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.ids)
        if progress is not None:
            progress("gradient", done, total)
