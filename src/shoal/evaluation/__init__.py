"""Transcribe with the unpruned model and with plans over it, and score the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.evaluation.shards import ShardOutputs
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan, Scores
    from shoal.tasks import Task

__all__ = ["evaluate", "evaluate_shard", "rescore"]


def evaluate(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    out: str | Path | None = None,
    batch_size: int | Literal["auto"] = 16,
    max_new_tokens: int | None = None,
    group_by: Sequence[str] | None = None,
    out_of_domain: Sequence[str] = (),
    comet: str | None = None,
    exports: Sequence[str] = (),
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
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
        batch_size: clips that are decoded at once, at most; `auto` is as many as the free memory allows.
        max_new_tokens: most tokens a clip may get; None is 16 and 20 for every second of audio, at most 448.
        group_by: manifest fields to score by; None is the speaker, where known. The data set is added where there are
            several, except for an empty list. Many different ages (`age`) become bands of ten years.
        out_of_domain: names of data sets that are unlike the others; those and the others are pooled as well.
        comet: a checkpoint of COMET, or the name of one: scores translations too; see `shoal.evaluation.comet`.
        exports: formats to write the outputs in, under `exports/`: `lm-eval`, `nemo`, `trn`.
        cluster: what the bootstrap draws.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.
        progress: called with ("transcribe", clips × systems done, in all).

    Raises:
        UsageError: a text LLM, a task for which nothing is decoded, or an argument that makes no sense; or another
            process is decoding into `out`.
        PlanError: a plan for another depth.
        ManifestError: no usable clip or reference.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    from shoal.evaluation.run import run_evaluate
    from shoal.evaluation.settings import DecodingSettings, Resampling, ScoringSettings, TokenLimit

    resampling = Resampling(replicates, level, cluster, seed)
    return run_evaluate(
        model,
        data,
        task,
        DecodingSettings(batch_size, TokenLimit(max_new_tokens)),
        ScoringSettings(resampling, group_by, out_of_domain, comet, exports),
        plans=plans,
        against=against,
        out=None if out is None else Path(out),
        progress=progress,
    )


def evaluate_shard(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    shard: tuple[int, int],
    out: str | Path,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    batch_size: int | Literal["auto"] = 16,
    max_new_tokens: int | None = None,
    progress: Progress | None = None,
) -> ShardOutputs:
    """Decode every N-th clip, for `evaluate` to score once all shards are there.

    The shards of an evaluation can be run by several processes at the same time, in any order, again, and in another
    number; none repeats what another has finished before. `evaluate` with the same arguments and `out` then takes
    their outputs up, decodes what is missing, and scores; there is nothing to score in a part of the clips.

    Args:
        model: as for `evaluate`, and so are the arguments that are not named here.
        data: all clips, not only those of the shard.
        task: what is asked.
        shard: (K, N) for the K-th of N parts, from 1.
        out: folder that all shards share; outputs go to `outputs/SYSTEM.shard-K-of-N.jsonl`.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        batch_size: clips that are decoded at once, at most; `auto` is as many as the free memory allows.
        max_new_tokens: most tokens a clip may get.
        progress: called with ("transcribe", clips × systems done, in all), of this shard.

    Raises:
        UsageError: as `evaluate`; no such shard; or another process is at the same one, or at the whole.
        PlanError: a plan for another depth.
        ManifestError: a row without the task's answer, or too many clips whose audio is bad.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    from shoal.evaluation.run import run_shard
    from shoal.evaluation.settings import DecodingSettings, TokenLimit
    from shoal.evaluation.shards import Shard

    return run_shard(
        model,
        data,
        task,
        DecodingSettings(batch_size, TokenLimit(max_new_tokens)),
        Shard(*shard),
        plans=plans,
        against=against,
        out=Path(out),
        progress=progress,
    )


def rescore(
    folder: str | Path,
    *,
    group_by: Sequence[str] | None = None,
    out_of_domain: Sequence[str] = (),
    comet: str | None = None,
    exports: Sequence[str] = (),
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score again from the raw outputs in `folder`, without a model; `scores.json` is written anew.

    Every clip that all systems of the last `scores.json` have an output for is scored.

    Args:
        folder: the `out` of an earlier `evaluate`.
        group_by: manifest fields to score by; None is the speaker, where known. The data set is added where there are
            several, except for an empty list. Many different ages (`age`) become bands of ten years.
        out_of_domain: names of data sets that are unlike the others; those and the others are pooled as well.
        comet: a checkpoint of COMET, or the name of one: scores translations too; see `shoal.evaluation.comet`.
        exports: formats to write the outputs in, under `exports/`: `lm-eval`, `nemo`, `trn`.
        cluster: what the bootstrap draws.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        FileFormatError: `scores.json` or an outputs file is missing or broken.
        UsageError: an unknown field, data set or format, or COMET cannot be used.
    """
    from shoal.evaluation.run import run_rescore
    from shoal.evaluation.settings import Resampling, ScoringSettings

    resampling = Resampling(replicates, level, cluster, seed)
    return run_rescore(Path(folder), ScoringSettings(resampling, group_by, out_of_domain, comet, exports))
