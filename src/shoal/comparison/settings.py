"""What is compared of audits."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from shoal.selection.settings import Combine
from shoal.settings import INTERVALS, Bootstrap, CommaSeparated, Settings
from shoal.terms import InputKind, Scope


class CompareSettings(Settings):
    """What is compared of two audits; they are split into halves together when measured on the same utterances."""

    input_a: InputKind | None = None
    """Input of the first audit; default: speech if it was measured."""
    input_b: InputKind | None = None
    """Input of the second audit; default: that of the first, or text when both are one file."""
    scopes: Annotated[tuple[Scope, ...] | None, Parameter(name="--scope")] = None
    """Positions to compare; default: every scope that both audits have, in a matrix the scope all. Repeatable."""
    seed: Annotated[int, INTERVALS] = 0
    """Seed of every random draw."""


class MatrixSettings(Bootstrap):
    """What is compared of several audits; sides measured on the same utterances are resampled together."""

    inputs: Annotated[tuple[InputKind | None, ...] | None, CommaSeparated, Parameter(metavar="INPUT,INPUT…")] = None
    """Input of each audit in a matrix, such as speech,text; default: speech if it was measured."""
    scope: Scope = "all"
    """Positions of the angular distance."""
    sizes: Annotated[tuple[int, ...] | None, CommaSeparated, Parameter(metavar="N,N…")] = None
    """Numbers of layers that the plans of a matrix remove, such as 2,4; default: those of 1, 2, 4 and 8 that were
    measured."""
    combine: Combine = "mean"
    """How the plan for all audits of a matrix is chosen: by their mean, or by the audit that loses most (worst)."""
    weights: Annotated[tuple[float, ...] | None, CommaSeparated, Parameter(metavar="N,N…")] = None
    """Weight of each audit in the plan for all, such as 1,2; default: alike."""
