"""Block Influence of single layers (ShortGPT, arXiv 2403.03853, eq. 1).

BI(l) = 1 - cos(input of layer l, output of layer l), in [0, 2]; small means the layer changes little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.measurement.metric_types import CosineMetric

if TYPE_CHECKING:
    from torch import Tensor


def influence(cosines: Tensor, depth: int) -> Tensor:
    """(N, blocks) → (N, L): single layers are the first L blocks."""
    return 1.0 - cosines[:, :depth]


METRIC = CosineMetric("influence", "block influence", "1 - cosine", influence, per="layer")
