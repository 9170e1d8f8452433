"""Do the peers give the numbers and the blocks that the audit gives, for what they claim to measure?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.measurement.blocks import to_triangle
from shoal.measurement.sums import Sums
from shoal.schema import Scope

Floats = npt.NDArray[np.float64]
SHOWN = 4


@dataclass(frozen=True)
class Ours:
    """The audit of the batches that the peers get. `batch_of` (U,) says which batch an utterance was in."""

    sums: Sums
    batch_of: npt.NDArray[np.intp]

    def mean(self, scope: Scope, metric: str) -> Floats:
        """As the audit has it: every position weighs the same."""
        return self.sums.mean(scope, metric)

    def mean_of_batch_means(self, scope: Scope, metric: str) -> Floats:
        """As the peers average: every batch weighs the same, however many positions it has."""
        values, counts = self.sums.scope(scope, metric)
        means = [
            values[self.batch_of == batch].sum(0) / counts[self.batch_of == batch].sum()
            for batch in np.unique(self.batch_of)
        ]
        return np.mean(means, axis=0)

    def triangle(self, flat: Floats) -> list[list[float]]:
        """Row n-1, column l: block (l, n)."""
        return to_triangle(flat, self.sums.depth)


@dataclass(frozen=True)
class Agreement:
    """How a peer compares. `difference` is the largest over what both measure, averaged the peer's way.

    `same` of `sizes` is how often both would remove the same layers; `lines` tell a reader the rest.
    """

    difference: float
    same: int
    sizes: int
    lines: tuple[str, ...]


def with_optipfair(ours: Ours, result: dict[str, Any]) -> Agreement:
    """Block influence of single layers at all real positions."""
    theirs = np.array(result["influence"])
    plain, batchwise = ours.mean("all", "influence"), ours.mean_of_batch_means("all", "influence")
    sizes = range(1, len(theirs))
    same = sum(_lowest(theirs, n) == _lowest(plain, n) for n in sizes)
    return Agreement(
        difference=_largest(theirs, batchwise),
        same=same,
        sizes=len(sizes),
        lines=(
            f"influence of {len(theirs)} single layers; it has no blocks",
            f"largest difference as it reports it (batches weigh the same): {_largest(theirs, plain):.1e}",
            f"largest difference once both average its way: {_largest(theirs, batchwise):.1e} (float32)",
            f"the n lowest layers are the same for {same} of {len(sizes)} n",
        ),
    )


def with_pruneme(ours: Ours, result: dict[str, Any]) -> Agreement:
    """Angular distance at the last position; blocks start at layer 1, the last boundary is past the norm."""
    triangle = ours.triangle(ours.mean_of_batch_means("last", "angular"))
    inner, ending = [0.0], [0.0]
    for theirs, row in zip(result["rows"], triangle, strict=False):
        differences = np.abs(np.array(theirs) - row[1:])
        inner += differences[:-1].tolist()
        ending.append(float(differences[-1]))
    starts = [int(np.argmin(row)) + 1 for row in result["rows"]]
    same, lines = _starts(ours, starts)
    return Agreement(
        difference=max(inner),
        same=same,
        sizes=len(starts),
        lines=(
            "angular distance at the last token, one block size a run; no block starts at layer 0",
            f"largest difference, blocks that end before the last layer: {max(inner):.1e} (float32)",
            f"largest difference, blocks that end at the last layer (read past the norm): {max(ending):.1e}",
            *lines,
        ),
    )


def with_short_transformers(ours: Ours, result: dict[str, Any]) -> Agreement:
    """Angular distance of all blocks at the last position; row n-1 of its matrix holds blocks of n layers."""
    triangle = ours.triangle(ours.mean("last", "angular"))
    matrix = np.array(result["matrix"])
    difference = max(_largest(matrix[n - 1, : len(row)], np.array(row)) for n, row in enumerate(triangle, start=1))
    same, lines = _starts(ours, result["starts"])
    right_row = [int(np.argmin(row[: len(row) - number])) for number, row in enumerate(matrix)][:-1]
    repaired, _ = _starts(ours, right_row)
    return Agreement(
        difference=difference,
        same=same,
        sizes=len(right_row),
        lines=(
            "angular distance of all blocks at the last token, one clip at a time",
            f"largest difference over all blocks: {difference:.1e} (float32)",
            *lines,
            f"read from the row that holds blocks of n layers it would be {repaired} of {len(right_row)}",
            f"a padded batch of two or more: {result['batched']}",
        ),
    )


COMPARE = {
    "optipfair": with_optipfair,
    "pruneme": with_pruneme,
    "short-transformers": with_short_transformers,
}


def _starts(ours: Ours, theirs: list[int]) -> tuple[int, tuple[str, ...]]:
    """For how many block sizes n = 1, 2 … the same block is chosen, and where the choices part."""
    triangle = ours.triangle(ours.mean("last", "angular"))
    right = [int(np.argmin(row)) for row in triangle][: len(theirs)]
    parted = [(n, a, b) for n, (a, b) in enumerate(zip(theirs, right, strict=True), start=1) if a != b]
    same = len(theirs) - len(parted)
    lines = [f"chooses the same block for {same} of {len(theirs)} n"]
    if parted:
        shown = ", ".join(f"{a} for {b} (n = {n})" for n, a, b in parted[:SHOWN])
        lines.append(f"first layer of the block where the choices part: {shown} …")
    return same, tuple(lines)


def _lowest(scores: Floats, n: int) -> set[int]:
    return set(np.argsort(scores, kind="stable")[:n].tolist())


def _largest(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max())
