"""Least squares of any length in the memory of two matrices: weighted ridge regression by its normal equations.

Find R (d, k) that minimises Σ w‖R f - r‖² + λ‖R‖² over positions with features f (k,), targets r (d,) and weight w.
With G = Σ w f fᵀ and C = Σ w r fᵀ it is R = C (G + λI)⁻¹ (Hoerl and Kennard 1970). λ is the ridge times the mean of
G's diagonal, so the same ridge means the same for features of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.decoder.sublayers import exact
from shoal.errors import MeasureError, UsageError

ROWS = 2048
"""Positions that are in float64 at a time."""


class NormalEquations:
    """Adds up G (k, k) and C (d, k) in float64; `solve` takes two more matrices of the size of G for a while.

    Sums are where the features are (on the CPU where a device has no float64).
    """

    def __init__(self) -> None:
        self._gram = self._cross = torch.empty(0)
        self._energy = 0.0
        self.positions = 0
        """Positions added."""

    def add(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add N positions.

        Args:
            features: (N, k), any floating dtype.
            targets: (N, d).
            weights: (N,), not negative.
        """
        parts = zip(features.split(ROWS), targets.split(ROWS), weights.split(ROWS), strict=True)
        for f, r, w in ((exact(f), exact(r), exact(w)) for f, r, w in parts):
            r, w = r.to(f.device), w.to(f.device)[:, None]
            if not self._gram.numel():
                self._gram = f.new_zeros(f.shape[1], f.shape[1])
                self._cross = f.new_zeros(r.shape[1], f.shape[1])
            weighted = w * f
            self._gram.addmm_(weighted.T, f)
            self._cross.addmm_(r.T, weighted)
            self._energy += float((w * r.square()).sum())
        self.positions += len(features)

    def solve(self, ridge: float) -> Tensor:
        """R (d, k) float64; all zeros where the ridge is infinite, or no feature ever moved.

        Raises:
            UsageError: the ridge is not above 0.
            MeasureError: nothing was added, or the sums are too large or too different in size to solve.
        """
        if not ridge > 0:
            raise UsageError(f"a ridge of {ridge}", where="ridge", fix="give a number above 0, such as 0.01")
        if not self.positions:
            raise MeasureError("there is no position to fit")
        scale = ridge * float(self._gram.diagonal().mean())
        if scale == 0:
            return torch.zeros_like(self._cross)
        # With G / λ + I no eigenvalue is below 1, so the factorisation does not fail for lack of positions.
        system = self._gram / scale
        system.diagonal().add_(1)
        factor, failed = torch.linalg.cholesky_ex(system)
        solution = torch.cholesky_solve(self._cross.T / scale, factor).T
        if int(failed) or not bool(torch.isfinite(solution).all()):
            raise MeasureError("the least-squares fit has no finite solution; use a larger ridge or float32")
        return solution

    def error(self, solution: Tensor | None = None) -> float:
        """Σ w‖R f - r‖² for the solution R (d, k), from the sums alone; default R = 0."""
        if solution is None:
            return self._energy
        crossed = float((solution * self._cross).sum())
        squared = float(((solution @ self._gram) * solution).sum())
        return max(0.0, self._energy - 2 * crossed + squared)
