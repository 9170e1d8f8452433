"""The grids behind the heatmaps: rows n, columns l, None outside the triangle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from shoal.schema import Triangle

Grid: TypeAlias = list[list[float | None]]
"""(L, L): row n-1, column l; None where l + n > L."""

DIGITS = 5


def to_grid(triangle: Triangle) -> Grid:
    """A triangle as a square, filled up with None."""
    depth = len(triangle)
    return [[round(v, DIGITS) for v in row] + [None] * (depth - len(row)) for row in triangle]


def row_normalised(triangle: Triangle) -> Triangle:
    """Each row n scaled to 0 … 1 over its blocks, as in the heatmaps of arXiv 2403.17887, figure 4."""
    return [_unit(row) for row in triangle]


def _unit(row: Sequence[float]) -> list[float]:
    low, high = min(row), max(row)
    return [(value - low) / (high - low) if high > low else 0.0 for value in row]


def difference(a: Triangle, b: Triangle) -> Triangle:
    """`a - b`, block by block; both of the same depth."""
    return [[x - y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def extent(triangle: Triangle) -> float:
    """The largest size of a value."""
    return max((abs(value) for row in triangle for value in row), default=0.0)
