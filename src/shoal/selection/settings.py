"""How layers are chosen."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from cyclopts import Parameter
from pydantic import Field

from shoal.settings import INTERVALS, CommaSeparated, Settings
from shoal.terms import InputKind, Part, Scope

StrategyName = Literal["contiguous", "deepest", "uniform", "random", "lowest", "consensus"]
REGISTRY: tuple[StrategyName, ...] = get_args(StrategyName)
"""The modules of this folder that hold a strategy."""
Combine = Literal["mean", "worst"]


class SelectSettings(Settings):
    """How layers are chosen."""

    strategy: StrategyName | None = None
    """Strategy that chooses the layers; default: contiguous, for several audits consensus, for a part of the layers
    lowest."""
    input: InputKind | None = None
    """Input whose measurement decides; default: speech if it was measured."""
    scope: Scope | None = None
    """Positions that count; default: all, audio and text alike, as in ShortGPT, or the metric's own. Gromov et al.
    (arXiv 2403.17887) take the last position of each sequence alone (last)."""
    metric: str | None = None
    """Metric to rank by, of those in the audit, such as angular, influence, gradient, ablation or ablation-kl; default:
    the strategy's own, for a part of the layers ablation."""
    part: Part = "layer"
    """Part of the layers to remove; attention and mlp are ranked by an importance measured of them."""
    combine: Combine = "mean"
    """How several audits share a plan: by their mean, or by the one that loses most (worst)."""
    weights: Annotated[tuple[float, ...] | None, CommaSeparated, Parameter(metavar="N,N…")] = None
    """Weight of each of several audits, such as 1,2; default: alike."""
    allow_last: bool = False
    """Allow the last layer to go too."""
    seed: Annotated[int, INTERVALS] = Field(default=0)
    """Seed of a strategy that draws at random."""
