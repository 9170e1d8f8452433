"""Angular distance of blocks (Gromov et al., arXiv 2403.17887, eq. 7; arXiv 2603.05121)."""

from __future__ import annotations

import math

from torch import Tensor

from shoal.measurement.blocks import block_count


class Angular:
    """d(l, l+n) = arccos(cos(x_l, x_{l+n})) / pi, in [0, 1]; small means the block changes little."""

    name = "angular"

    def columns(self, depth: int) -> int:
        """One number a block: L (L + 1) / 2."""
        return block_count(depth)

    def values(self, cosines: Tensor, depth: int) -> Tensor:
        """(N, blocks) → (N, blocks). Clamped first: rounding can leave a cosine just outside [-1, 1]."""
        del depth
        return cosines.clamp(-1.0, 1.0).acos_().div_(math.pi)
