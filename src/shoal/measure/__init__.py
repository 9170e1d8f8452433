"""Measure how redundant the decoder layers are, and compare two measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Audit, Comparison, InputKind, Scope
    from shoal.tasks import Task

__all__ = ["audit", "compare"]


def audit(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    *,
    inputs: Sequence[InputKind] | None = None,
    out: str | Path | None = None,
    batch_size: int = 16,
    cluster: Literal["utterance", "speaker"] = "utterance",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Audit:
    """Measure angular distance of every block and influence of every layer, in all scopes, in one forward pass.

    Args:
        model: from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: its instruction and target make the prompt and the teacher-forced response.
        inputs: `speech`, `text` or both; default is all the model can take.
        out: folder for `audit.json` and `audit.npz`; measuring the same again there reuses the `.npz`.
        batch_size: clips a forward pass.
        cluster: what the bootstrap resamples.
        replicates: bootstrap replicates.
        level: of the intervals.
        seed: of the bootstrap.
        progress: called with (input, clips done, clips in all).

    Raises:
        MeasureError: a state is not finite or zero.
        UsageError: an input the model cannot take.
    """
    from shoal.measure.auditing import run_audit

    return run_audit(
        model,
        data,
        task,
        inputs=inputs,
        out=None if out is None else Path(out),
        batch_size=batch_size,
        cluster=cluster,
        replicates=replicates,
        level=level,
        seed=seed,
        progress=progress,
    )


def compare(
    a: str | Path,
    b: str | Path,
    *,
    input_a: InputKind | None = None,
    input_b: InputKind | None = None,
    scopes: Sequence[Scope] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """How alike two audits are: rank correlations of the triangles and overlap of the chosen blocks.

    Args:
        a: an `audit.json`.
        b: another, or the same (then speech is compared with text).
        input_a: which input of `a`; default speech if there.
        input_b: which input of `b`; default the same as `a`, or text when both files are one.
        scopes: which scopes; default all that both have.
        replicates: bootstrap replicates; the two are resampled together when measured on the same utterances.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        FileFormatError: a file or its `.npz` is missing or broken.
        UsageError: depths differ, or an input or scope is missing.
    """
    from shoal.measure.comparing import run_compare

    return run_compare(
        Path(a),
        Path(b),
        input_a=input_a,
        input_b=input_b,
        scopes=scopes,
        replicates=replicates,
        level=level,
        seed=seed,
    )
