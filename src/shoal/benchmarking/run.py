"""The bench: size, latency and memory of the unpruned model and of plans over it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
from shoal.evaluation.systems import FULL, named_plans
from shoal.progress import Progress, report_progress
from shoal.provenance import provenance
from shoal.pruning.in_memory import pruned
from shoal.schema import Bench, Estimate, SystemBench
from shoal.schema.files import first_difference
from shoal.settings import takes

if TYPE_CHECKING:
    import numpy as np

    from shoal.data import Clip, Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task


@dataclass(frozen=True, slots=True)
class _Systems:
    """Names and plans; the first is the unpruned model."""

    names: list[str]
    plans: list[Plan | None]

    @property
    def removed(self) -> list[Sequence[int] | Plan]:
        """What each goes without."""
        return [[] if plan is None else plan for plan in self.plans]


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
        **options: fields of `BenchSettings`, instead of `settings` or in their index.

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
    info = model.info()
    named = named_plans(plans, info.depth)
    systems = _Systems([FULL, *named], [None, *named.values()])
    batches = _batches(data, settings)
    document = _of_earlier_run(out, settings, model, data, systems, sum(map(len, batches)))
    if document is None:
        sizes = [_size(model, layers) for layers in systems.removed]
        timings = _time(model, batches, task, systems, settings, progress)
        document = Bench(
            provenance=provenance(device=str(model.device), dtype=model.dtype_name),
            model=info,
            data=data.info(),
            clips=sum(map(len, batches)),
            repeats=settings.repeats,
            batch_size=settings.batch_size,
            new_tokens=settings.new_tokens,
            level=settings.level,
            systems=[_system(index, systems, sizes, timings, settings) for index in range(len(systems.names))],
        )
        _save(document, out)
    else:
        report_progress(progress, "time", *[len(batches) * settings.repeats] * 2)
    if settings.memory and document.systems[0].peak_memory_bytes is None:
        document = _with_peaks(document, _peaks(model, batches, task, systems, settings, progress))
        _save(document, out)
    return document


def _save(document: Bench, out: str | Path | None) -> None:
    if out is not None:
        document.save(out)


def _of_earlier_run(
    out: str | Path | None, settings: BenchSettings, loaded: LoadedModel, data: Dataset, systems: _Systems, clips: int
) -> Bench | None:
    """What `out` holds of the same measurement, maybe without memory; None where nothing is there.

    Raises:
        UsageError: it is of another measurement; the line says which.
        FileFormatError: it cannot be read.
    """
    if out is None or settings.force or not Path(out).exists():
        return None
    document = Bench.load(out)
    names = ("repeats", "batch_size", "new_tokens", "level")
    stored = {
        "model": document.model.fingerprint,
        "data": document.data.fingerprint,
        "device": document.provenance.device,
        "dtype": document.provenance.dtype,
        "clips": document.clips,
        "systems": {system.name: system.removed for system in document.systems},
        **{name: getattr(document, name) for name in names},
    }
    asked = {
        "model": loaded.info().fingerprint,
        "data": data.info().fingerprint,
        "device": str(loaded.device),
        "dtype": loaded.dtype_name,
        "clips": clips,
        "systems": {name: plan.layers if plan else [] for name, plan in zip(systems.names, systems.plans, strict=True)},
        **{name: getattr(settings, name) for name in names},
    }
    if difference := first_difference(stored, asked):
        raise UsageError(
            f"another bench is there: {difference}",
            where=str(out),
            fix="choose another file with --out, or replace it with --force",
        )
    return document


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


def _size(loaded: LoadedModel, layers: Sequence[int] | Plan) -> ModelSize:
    with pruned(loaded.model, layers, family=loaded.family) if layers else nullcontext():
        return size_of(loaded)


def _time(
    loaded: LoadedModel,
    batches: Sequence[Sequence[Clip]],
    task: Task,
    systems: _Systems,
    settings: BenchSettings,
    progress: Progress | None,
) -> Timings:
    return time_systems(
        loaded,
        batches,
        task,
        systems.removed,
        repeats=settings.repeats,
        new_tokens=settings.new_tokens,
        step=_counted(progress, "time", len(batches) * settings.repeats),
    )


def _counted(progress: Progress | None, label: str, total: int) -> Step:
    """What is called after every step of `total`."""
    numbers = itertools.count(1)
    report_progress(progress, label, 0, total)
    return lambda: report_progress(progress, label, next(numbers), total)


def _peaks(
    loaded: LoadedModel,
    batches: Sequence[Sequence[Clip]],
    task: Task,
    systems: _Systems,
    settings: BenchSettings,
    progress: Progress | None,
) -> list[int]:
    return peak_memories(
        loaded,
        batches[0][0],  # the longest
        task,
        systems.plans,
        new_tokens=settings.new_tokens,
        trust_remote_code=settings.trust_remote_code,
        step=_counted(progress, "memory", len(systems.names)),
    )


def _system(
    index: int,
    systems: _Systems,
    sizes: Sequence[ModelSize],
    timings: Timings,
    settings: BenchSettings,
) -> SystemBench:
    ratios = _ratios(index, sizes, timings, settings) if index else {}
    plan = systems.plans[index]
    return SystemBench(
        name=systems.names[index],
        removed=plan.layers if plan else [],
        **asdict(sizes[index]),
        encode_seconds=_estimate(settings, timings.encode),
        prefill_seconds=_estimate(settings, timings.prefill[index]),
        decode_seconds=_estimate(settings, timings.token[index]),
        total_seconds=_estimate(settings, timings.total[index]),
        **ratios,
    )


def _estimate(settings: BenchSettings, values: np.ndarray[Any, Any]) -> Estimate:
    """A figure with its interval from (clips, rounds)."""
    return estimate(values, replicates=settings.replicates, level=settings.level, seed=settings.seed)


def _ratios(
    index: int,
    sizes: Sequence[ModelSize],
    timings: Timings,
    settings: BenchSettings,
) -> dict[str, Any]:
    """This system over the unpruned one; times are paired by clip and round."""
    size, full = sizes[index], sizes[0]
    return {
        "prefill_ratio": _estimate(settings, timings.prefill[index] / timings.prefill[0]),
        "decode_ratio": _estimate(settings, timings.token[index] / timings.token[0]),
        "total_ratio": _estimate(settings, timings.total[index] / timings.total[0]),
        "parameter_ratio": size.parameters / full.parameters,
        "checkpoint_ratio": size.checkpoint_bytes / full.checkpoint_bytes,
    }
