"""What a model costs and what a plan saves: seconds, bytes, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Bench, Plan
    from shoal.tasks import Task

__all__ = ["bench"]


def bench(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    plans: Sequence[Plan] = (),
    clips: int = 8,
    repeats: int = 5,
    batch_size: int = 1,
    new_tokens: int = 32,
    memory: bool = False,
    trust_remote_code: bool = False,
    out: str | Path | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """Time the unpruned model and every plan, interleaved on the same clips, and compare their sizes.

    Encoding, prefill and decoding are timed apart. Figures are seconds a clip, and a token for decoding;
    ratios are pruned over unpruned, paired by clip and round.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: what is asked.
        plans: systems besides the unpruned model.
        clips: how many clips are timed, from the whole range of durations.
        repeats: how often each is timed, after one pass to warm up.
        batch_size: clips a batch; 1 gives the latency of a single request.
        new_tokens: tokens decoded for every clip, whatever the model says, so that systems do equal work.
        memory: also measure peak memory, each system in a fresh process that loads the model again.
        trust_remote_code: run code that a model brings along, in those processes.
        out: file to write, such as `bench.json`.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.
        progress: called with ("time" or "memory", done, in all).

    Raises:
        UsageError: a text LLM, or a number that is too small.
        PlanError: a plan for another depth.
        MeasureError: a process that measures memory failed.
    """
    from shoal.benchmarking.run import BenchSettings, run_bench

    settings = BenchSettings(
        clips=clips,
        repeats=repeats,
        batch_size=batch_size,
        new_tokens=new_tokens,
        memory=memory,
        trust_remote_code=trust_remote_code,
        replicates=replicates,
        level=level,
        seed=seed,
    )
    return run_bench(
        model,
        data,
        task,
        plans=plans,
        settings=settings,
        out=None if out is None else Path(out),
        progress=progress,
    )
