"""Measure how redundant the decoder layers are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.progress import Progress

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Audit, InputKind, Part, Scope
    from shoal.tasks import Task

__all__ = ["audit"]


def audit(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    inputs: Sequence[InputKind] | None = None,
    metrics: Sequence[str] = ("angular", "influence"),
    block_sizes: Sequence[int] | None = (1,),
    parts: Sequence[Part] = ("layer",),
    loss_scope: Scope = "text",
    race: bool = False,
    decode: bool = False,
    out: str | Path | None = None,
    batch_size: int = 16,
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Measure what the decoder layers do: by similarity, by gradients, by leaving them out.

    Angular distance of every block and influence of every layer come from one forward pass, in all scopes, and are
    always there. `gradient` takes a backward pass more, and gives every block, attention and MLP. `ablation` leaves
    out every layer, or every block of the sizes asked for, and gives the true rise of the task loss and the divergence
    from the full model; with it the audit says how well each metric predicts that truth.

    Args:
        model: from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: its instruction and target make the prompt and the teacher-forced response.
        inputs: `speech`, `text` or both; default is all the model can take.
        metrics: of `angular`, `influence`, `gradient` and `ablation`.
        block_sizes: sizes n of the blocks that ablation leaves out; None is all of them.
        parts: what of a layer ablation leaves out: `layer`, `attention`, `mlp` (the latter two of single layers).
        loss_scope: whose tokens the loss is taken over, for gradient and ablation; see `Scope`.
        race: let ablation drop candidates as soon as they are surely worse than the best, and stop when only that is
            left; the others stay partly measured.
        decode: let ablation decode every clip without each candidate too, for the task's own error rate.
        out: folder for `audit.json` and `audit.npz`; measuring the same again there reuses the `.npz`.
        batch_size: clips a forward pass.
        cluster: what the bootstrap resamples.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.
        progress: called with (input, clips done, clips in all).

    Raises:
        MeasureError: a state is not finite or zero, or the full model's loss is not finite.
        ModelError: gradient or ablation of a class whose loss is not known.
        UsageError: an input the model or the task cannot take, or an unknown metric, part or block size.
    """
    from shoal.measurement.audit import run_audit
    from shoal.measurement.importance_config import ImportanceConfig

    return run_audit(
        model,
        data,
        task,
        inputs=inputs,
        wanted=ImportanceConfig.parse(
            metrics, sizes=block_sizes, parts=parts, scope=loss_scope, race=race, decode=decode, seed=seed
        ),
        out=None if out is None else Path(out),
        batch_size=batch_size,
        cluster=cluster,
        replicates=replicates,
        level=level,
        seed=seed,
        progress=progress,
    )
