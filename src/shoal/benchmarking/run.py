"""The bench: size, latency and memory of the unpruned model and of plans over it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.benchmarking.latency import Step, Timings, estimate, time_systems
from shoal.benchmarking.memory import peak_memories
from shoal.benchmarking.settings import BenchSettings
from shoal.benchmarking.size import ModelSize, size_of
from shoal.errors import ManifestError, UsageError
from shoal.evaluation.model_checks import check_hears
from shoal.evaluation.systems import checkpoint_name, named_plans
from shoal.progress import Progress, report_progress
from shoal.provenance import provenance
from shoal.pruning.in_memory import pruned
from shoal.schema import Bench, Estimate, SystemBench
from shoal.schema.files import check_same
from shoal.settings import takes

if TYPE_CHECKING:
    import numpy as np

    from shoal.data import Clip, Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task


@takes(BenchSettings)
def bench(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: BenchSettings | None = None,
    *,
    plans: Sequence[Plan] = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Bench:
    """Time the unpruned model and every plan, interleaved on the same clips, and compare their sizes.

    Encoding, prefill and decoding are timed apart. Figures are seconds a clip, and a token for decoding;
    ratios are pruned over unpruned, paired by clip and round.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: what is asked.
        settings: how much is timed.
        plans: systems besides the unpruned model.
        out: file to write, such as `bench.json`; what it holds of the same measurement is not measured again.
        progress: called with ("time" or "memory", done, in all).
        **options: fields of `BenchSettings`, instead of `settings` or in their place.

    Raises:
        UsageError: a text LLM, a number that is too small, or a file of another measurement.
        PlanError: a plan for another depth.
        MeasureError: a process that measures memory failed.
    """
    settings = BenchSettings.of(settings, options)
    task = tasks.get(task) if isinstance(task, str) else task
    check_hears(model)
    _check_engine(model)
    model.check_clips(data, task)
    run = _Run(model, _batches(data, settings), task, settings, _systems(model, plans), progress)
    header = Bench(
        provenance=provenance(device=str(model.device), dtype=model.dtype_name),
        model=model.info(),
        data=data.info(),
        clips=sum(map(len, run.batches)),
        repeats=settings.repeats,
        batch_size=settings.batch_size,
        new_tokens=settings.new_tokens,
        level=settings.level,
        systems=[],
    )
    document = None if out is None or settings.force else _of_earlier_run(Path(out), header, run.systems)
    if document is None:
        document = header.model_copy(update={"systems": run.timed()})
        _save(document, out)
    else:
        report_progress(progress, "time", run.steps, run.steps)
    if settings.memory and document.systems[0].peak_memory_bytes is None:
        document = _with_peaks(document, run.peaks())
        _save(document, out)
    return document


def _systems(model: LoadedModel, plans: Sequence[Plan]) -> dict[str, Plan | None]:
    """By name; the first is the model without any plan."""
    named = named_plans(plans, model.info().depth)
    return {checkpoint_name(model, named): None, **named}


def _save(document: Bench, out: str | Path | None) -> None:
    if out is not None:
        document.save(out)


def _of_earlier_run(path: Path, header: Bench, systems: Mapping[str, Plan | None]) -> Bench | None:
    """What the file holds of the same measurement, maybe without memory; None where there is no file.

    Raises:
        UsageError: it is of another measurement; the line says which.
        FileFormatError: it cannot be read.
    """
    if not path.exists():
        return None
    document = Bench.load(path)
    stored = {system.name: system.removed for system in document.systems}
    asked = {name: plan.layers if plan else [] for name, plan in systems.items()}
    check_same(path, "a bench", _measured(document, stored), _measured(header, asked))
    return document


def _measured(document: Bench, systems: Mapping[str, list[int]]) -> dict[str, Any]:
    """What decides its figures, besides the machine."""
    return {
        "model": document.model.fingerprint,
        "data": document.data.fingerprint,
        "systems": systems,
        **document.provenance.model_dump(include={"device", "dtype"}),
        **document.model_dump(include={"clips", "repeats", "batch_size", "new_tokens", "level"}),
    }


def _with_peaks(document: Bench, peaks: Sequence[int]) -> Bench:
    """The bench with peak memory, and its ratio for all systems but the first."""
    ratios = [None, *(peak / peaks[0] for peak in peaks[1:])]
    systems = [
        system.model_copy(update={"peak_memory_bytes": peak, "peak_memory_ratio": ratio})
        for system, peak, ratio in zip(document.systems, peaks, ratios, strict=True)
    ]
    return document.model_copy(update={"systems": systems})


def _check_engine(loaded: LoadedModel) -> None:
    """Encoder, prefill and decoding can be timed apart only where the decoder runs from embeddings."""
    if not loaded.engine:
        raise UsageError(
            f"{type(loaded.model).__name__} decodes with its own generate only, which cannot be timed part by part",
            where="MODEL",
            fix="see `shoal families`; evaluate stores the seconds of every batch",
        )


def _batches(data: Dataset, settings: BenchSettings) -> list[list[Clip]]:
    """Clips from the whole range of durations, longest first, in batches of similar length."""
    rows: list[Row] = sorted(data.rows, key=lambda row: (-row.duration, row.id))
    count = min(settings.clips, len(rows))
    chosen = [rows[(2 * index + 1) * len(rows) // (2 * count)] for index in range(count)]
    clips = list(data.clips(chosen))
    if not clips:
        raise ManifestError("no clip is left to time", fix="see the skipped rows above")
    return [clips[at : at + settings.batch_size] for at in range(0, len(clips), settings.batch_size)]


@dataclass(frozen=True, slots=True)
class _Run:
    """Batches of clips, and the systems that are measured on them."""

    loaded: LoadedModel
    batches: Sequence[Sequence[Clip]]
    task: Task
    settings: BenchSettings
    systems: Mapping[str, Plan | None]
    progress: Progress | None

    @property
    def steps(self) -> int:
        """How many times a batch is timed."""
        return len(self.batches) * self.settings.repeats

    def timed(self) -> list[SystemBench]:
        """Sizes and times."""
        removed = [plan or () for plan in self.systems.values()]
        sizes = [self._size(layers) for layers in removed]
        timings = time_systems(
            self.loaded,
            self.batches,
            self.task,
            removed,
            repeats=self.settings.repeats,
            new_tokens=self.settings.new_tokens,
            step=self._counted("time", self.steps),
        )
        return [self._system(index, sizes, timings) for index in range(len(removed))]

    def peaks(self) -> list[int]:
        """Peak memory of each system on the longest clip."""
        return peak_memories(
            self.loaded,
            self.batches[0][0],
            self.task,
            list(self.systems.values()),
            new_tokens=self.settings.new_tokens,
            trust_remote_code=self.settings.trust_remote_code,
            step=self._counted("memory", len(self.systems)),
        )

    def _size(self, layers: Sequence[int] | Plan) -> ModelSize:
        with pruned(self.loaded.model, layers, family=self.loaded.family) if layers else nullcontext():
            return size_of(self.loaded)

    def _counted(self, stage: str, total: int) -> Step:
        """What is called after every step of `total`."""
        numbers = itertools.count(1)
        report_progress(self.progress, stage, 0, total)
        return lambda: report_progress(self.progress, stage, next(numbers), total)

    def _system(self, index: int, sizes: Sequence[ModelSize], timings: Timings) -> SystemBench:
        """Its figures, and those over the unpruned model's; times are paired by clip and round."""
        name, plan = list(self.systems.items())[index]
        size, full = sizes[index], sizes[0]
        times = {"prefill": timings.prefill, "decode": timings.token, "total": timings.total}
        figures: dict[str, Any] = {f"{part}_seconds": self._estimate(seconds[index]) for part, seconds in times.items()}
        if index:
            figures |= {f"{part}_ratio": self._estimate(seconds[index] / seconds[0]) for part, seconds in times.items()}
            figures["parameter_ratio"] = size.parameters / full.parameters
            figures["checkpoint_ratio"] = size.checkpoint_bytes / full.checkpoint_bytes
        removed = plan.layers if plan else []
        figures["encode_seconds"] = self._estimate(timings.encode)
        missing = self.loaded.info().removed_layers
        return SystemBench(name=name, removed=removed, missing=missing, **asdict(size), **figures)

    def _estimate(self, values: np.ndarray[Any, Any]) -> Estimate:
        """A figure with its interval from (clips, rounds)."""
        settings = self.settings
        return estimate(values, replicates=settings.replicates, level=settings.level, seed=settings.seed)
