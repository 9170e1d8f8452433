"""The order in which blocks (l, n) are laid out in a flat vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shoal.errors import UsageError
from shoal.schema import Triangle
from shoal.terms import Candidate

CHUNK_BYTES = 32 * 2**20
"""Upper bound for the float64 copy of a chunk of states; fits a CPU's last-level cache better than one big copy."""


def block_count(depth: int) -> int:
    """Number of blocks (l, n) of a decoder with `depth` layers: L (L + 1) / 2."""
    return depth * (depth + 1) // 2


def block_ends(depth: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and last boundary of every block, each of shape (L (L + 1) / 2,).

    Boundary l is the input of layer l, boundary L the raw output of the last layer. Blocks are ordered by size n,
    then by start l, so the first L of them are the single layers.
    """
    starts = [start for n in range(1, depth + 1) for start in range(depth - n + 1)]
    stops = [start + n for n in range(1, depth + 1) for start in range(depth - n + 1)]
    return np.array(starts, dtype=np.intp), np.array(stops, dtype=np.intp)


def block_layers(depth: int) -> list[Candidate]:
    """The layers of every block, in the same order."""
    starts, stops = (ends.tolist() for ends in block_ends(depth))
    return [tuple(range(start, stop)) for start, stop in zip(starts, stops, strict=True)]


def block_candidates(depth: int, sizes: Sequence[int] | None = None) -> list[Candidate]:
    """All blocks of the given sizes, the smallest size first; default every size 1 … L-1.

    Raises:
        UsageError: a size that leaves no layer, or is none.
    """
    chosen = set(range(1, depth) if sizes is None else sizes)
    if bad := sorted(size for size in chosen if not 1 <= size < depth):
        raise UsageError(
            f"a block of {bad[0]} layers of {depth}", where="--block-sizes", fix=f"give sizes of 1 to {depth - 1}"
        )
    return [layers for layers in block_layers(depth) if len(layers) in chosen]


def block_slice(depth: int, n: int) -> slice:
    """Where the blocks of `n` layers lie in the flat vector."""
    first = sum(depth - size + 1 for size in range(1, n))
    return slice(first, first + depth - n + 1)


def to_triangle(flat: npt.NDArray[np.float64], depth: int) -> Triangle:
    """Rows `[n-1][l]` from a flat vector of shape (L (L + 1) / 2,)."""
    return [flat[block_slice(depth, n)].tolist() for n in range(1, depth + 1)]
