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
        out: file to write, such as `bench.json`.
        progress: called with ("time" or "memory", done, in all).
        **options: fields of `BenchSettings`, instead of `settings` or in their index.

    Raises:
        UsageError: a text LLM, or a number that is too small.
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
    sizes = [_size(model, layers) for layers in systems.removed]
    timings = _time(model, batches, task, systems, settings, progress)
    peaks = _peaks(model, batches, task, systems, settings, progress)
    document = Bench(
        provenance=provenance(device=str(model.device), dtype=model.dtype_name),
        model=info,
        data=data.info(),
        clips=sum(map(len, batches)),
        repeats=settings.repeats,
        batch_size=settings.batch_size,
        new_tokens=settings.new_tokens,
        level=settings.level,
        systems=[_system(index, systems, sizes, timings, peaks, settings) for index in range(len(systems.names))],
    )
    if out is not None:
        document.save(out)
    return document


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
) -> Sequence[int | None]:
    if not settings.memory:
        return [None] * len(systems.names)
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
    peaks: Sequence[int | None],
    settings: BenchSettings,
) -> SystemBench:
    ratios = _ratios(index, sizes, timings, peaks, settings) if index else {}
    plan = systems.plans[index]
    return SystemBench(
        name=systems.names[index],
        removed=plan.layers if plan else [],
        **asdict(sizes[index]),
        peak_memory_bytes=peaks[index],
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
    peaks: Sequence[int | None],
    settings: BenchSettings,
) -> dict[str, Any]:
    """This system over the unpruned one; times are paired by clip and round."""
    size, full, peak, full_peak = sizes[index], sizes[0], peaks[index], peaks[0]
    return {
        "prefill_ratio": _estimate(settings, timings.prefill[index] / timings.prefill[0]),
        "decode_ratio": _estimate(settings, timings.token[index] / timings.token[0]),
        "total_ratio": _estimate(settings, timings.total[index] / timings.total[0]),
        "parameter_ratio": size.parameters / full.parameters,
        "checkpoint_ratio": size.checkpoint_bytes / full.checkpoint_bytes,
        "peak_memory_ratio": peak / full_peak if peak and full_peak else None,
    }
