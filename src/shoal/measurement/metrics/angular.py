"""Angular distance of blocks (Gromov et al., arXiv 2403.17887, eq. 7; arXiv 2603.05121).

d(l, l+n) = arccos(cos(x_l, x_{l+n})) / pi, in [0, 1]; small means the block changes little.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.measurement.metric_types import CosineMetric

if TYPE_CHECKING:
    from torch import Tensor


def angular(cosines: Tensor, depth: int) -> Tensor:
    """(N, blocks) → (N, blocks). Clamped first: rounding can leave a cosine just outside [-1, 1]."""
    del depth
    return cosines.clamp(-1.0, 1.0).acos_().div_(math.pi)


METRIC = CosineMetric("angular", "angular distance", "share of pi", angular)
