"""How alike audits are: two of them position by position, or several tasks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shoal.schema import Comparison, InputKind, Scope, TaskMatrix

__all__ = ["compare", "task_matrix"]


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
    from shoal.comparison.audits import run_compare

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


def task_matrix(
    paths: Sequence[str | Path],
    *,
    inputs: Sequence[InputKind | None] | None = None,
    scope: Scope = "all",
    sizes: Sequence[int] | None = None,
    combine: Literal["mean", "worst"] = "mean",
    weights: Sequence[float] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> TaskMatrix:
    """Whether tasks, languages or inputs are redundant in the same layers, and what sharing a plan costs each.

    Plans are blocks that keep the last layer, the best of each side and one for all of them. They are chosen by the
    ablation loss where every side has it for all blocks of a size (and no race dropped one), otherwise by the angular
    distance.

    Args:
        paths: audits of one model, or one audit with speech and text.
        inputs: which input of each; default speech if there.
        scope: positions of the angular distance.
        sizes: how many layers plans remove; default 1, 2, 4 and 8, as far as they fit and were measured.
        combine: the plan for all takes the weighted `mean` of the sides, or the side that loses most (`worst`).
        weights: how much each side counts there; default alike.
        replicates: bootstrap replicates; sides measured on the same utterances are resampled together.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        Under a plan that a side refused (what it lost was not finite) that side has no entry in `losses`.

    Raises:
        FileFormatError: a file or its `.npz` is missing or broken.
        UsageError: not one model, or an input, a scope, a size or a weight that does not fit.
    """
    from shoal.comparison.task_matrix import run_task_matrix

    return run_task_matrix(
        [Path(path) for path in paths],
        inputs=inputs,
        scope=scope,
        sizes=sizes,
        combine=combine,
        weights=weights,
        replicates=replicates,
        level=level,
        seed=seed,
    )
