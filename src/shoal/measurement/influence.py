"""Block Influence of single layers (ShortGPT, arXiv 2403.03853, eq. 1)."""

from __future__ import annotations

from torch import Tensor


class Influence:
    """BI(l) = 1 - cos(input of layer l, output of layer l), in [0, 2]; small means the layer changes little."""

    name = "influence"

    def columns(self, depth: int) -> int:
        """One number a layer: L."""
        return depth

    def values(self, cosines: Tensor, depth: int) -> Tensor:
        """(N, blocks) → (N, L): single layers are the first L blocks."""
        return 1.0 - cosines[:, :depth]
