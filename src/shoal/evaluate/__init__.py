"""Transcribe with the unpruned model and with plans over it, and score the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan, Scores
    from shoal.tasks import Task

__all__ = ["evaluate", "rescore"]


def evaluate(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    out: str | Path | None = None,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    group_by: Sequence[str] | None = None,
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Scores:
    """Transcribe all clips greedily with every system, and score them on the same clips.

    The first system is the baseline: `against` if given, else the unpruned model. Differences from it are
    paired.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: what is asked, and how answers are normalised.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        out: folder for `scores.json` and the raw outputs in `outputs/`; running again there decodes only
            what is missing.
        batch_size: clips a batch.
        max_new_tokens: most tokens a clip may get; None is 16 and 20 for every second of audio, at most 448.
        group_by: manifest fields to score by; None is the speaker, where known.
        cluster: what the bootstrap draws.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.
        progress: called with ("transcribe", clips × systems done, in all).

    Raises:
        UsageError: a text LLM, a task for which nothing is decoded, or an argument that makes no sense.
        PlanError: a plan for another depth.
        ManifestError: no usable clip or reference.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    from shoal.evaluate.run import run_evaluate
    from shoal.evaluate.settings import Resampling, TokenLimit

    return run_evaluate(
        model,
        data,
        task,
        plans=plans,
        against=against,
        batch_size=batch_size,
        limit=TokenLimit(max_new_tokens),
        out=None if out is None else Path(out),
        resampling=Resampling(replicates, level, cluster, seed),
        group_by=group_by,
        progress=progress,
    )


def rescore(
    folder: str | Path,
    *,
    group_by: Sequence[str] | None = None,
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score again from the raw outputs in `folder`, without a model; `scores.json` is written anew.

    Every clip that all systems of the last `scores.json` have an output for is scored.

    Args:
        folder: the `out` of an earlier `evaluate`.
        group_by: manifest fields to score by; None is the speaker, where known.
        cluster: what the bootstrap draws.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        FileFormatError: `scores.json` or an outputs file is missing or broken.
    """
    from shoal.evaluate.run import run_rescore
    from shoal.evaluate.settings import Resampling

    return run_rescore(
        Path(folder), resampling=Resampling(replicates, level, cluster, seed), group_by=group_by
    )
