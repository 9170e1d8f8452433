"""Rank correlation."""

from __future__ import annotations

import numpy as np

from shoal.statistics.arrays import Floats


def spearman(x: Floats, y: Floats) -> Floats:
    """Rank correlation (average ranks for ties) of the rows of x and y, both (R, m) → (R,); 0 if one is constant."""
    rank_x, rank_y = ranks(x), ranks(y)
    rank_x -= rank_x.mean(1, keepdims=True)
    rank_y -= rank_y.mean(1, keepdims=True)
    norm = np.sqrt((rank_x**2).sum(1) * (rank_y**2).sum(1))
    return np.divide((rank_x * rank_y).sum(1), norm, out=np.zeros_like(norm), where=norm > 0)


def ranks(x: Floats) -> Floats:
    """Ranks 0 … m-1 within each row of (R, m); equal values share their mean rank."""
    rows, width = x.shape
    order = x.argsort(1, kind="stable")
    ordered = np.take_along_axis(x, order, 1)
    starts = np.concatenate([np.ones((rows, 1), bool), ordered[:, 1:] != ordered[:, :-1]], 1)
    tie = starts.ravel().cumsum() - 1
    positions = np.tile(np.arange(width, dtype=np.float64), rows)
    shared = np.bincount(tie, weights=positions) / np.bincount(tie)
    result = np.empty_like(x)
    np.put_along_axis(result, order, shared[tie].reshape(rows, width), 1)
    return result
