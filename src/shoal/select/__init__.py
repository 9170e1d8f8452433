"""Choose the layers to remove, from an audit.

Adding a strategy: a file with a `Strategy` bound to `STRATEGY`, and its name in `REGISTRY`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.schema import Audit, InputKind, Plan, Scope

if TYPE_CHECKING:
    from shoal.select.strategy import Strategy

REGISTRY: tuple[str, ...] = ("contiguous", "deepest", "uniform", "random", "lowest")
"""The modules of this folder that hold a strategy."""

__all__ = ["REGISTRY", "get", "layer_count", "manual", "mergekit_yaml", "select"]


def select(
    audit: Audit,
    layers: int | str,
    *,
    strategy: str = "contiguous",
    input: InputKind | None = None,
    scope: Scope = "all",
    metric: str | None = None,
    seed: int = 0,
    allow_last: bool = False,
    source_path: str = "",
) -> Plan:
    """Choose layers to remove.

    Args:
        audit: the measurement to choose from.
        layers: how many, see `layer_count`.
        strategy: a name in `REGISTRY`.
        input: `speech` or `text`; default is speech if it was measured.
        scope: which positions count. The default is every position, audio and text alike, as in ShortGPT;
            Gromov et al. (2403.17887) look at the last position of each sequence alone, which is `last`.
        metric: what to rank by; default is the strategy's own.
        seed: of a strategy that draws.
        allow_last: the last layer may go too.
        source_path: where the audit lies, for the record.

    Returns:
        The plan. A block has its distance with interval; `stability` is known for `contiguous` only.

    Raises:
        UsageError: an unknown strategy, metric, input or scope, or a number of layers that does not fit.
    """
    from shoal.select.choose import choose

    return choose(
        audit,
        layers,
        get(strategy),
        input=input,
        scope=scope,
        metric=metric,
        seed=seed,
        allow_last=allow_last,
        source_path=source_path,
    )


def manual(model_ref: str, depth: int, layers: Sequence[int], *, allow_last: bool = False) -> Plan:
    """A plan that removes the layers somebody lists.

    Args:
        model_ref: the model it is for.
        depth: its number of layers.
        layers: 0-based indices, in any order.
        allow_last: the last layer may be among them.

    Raises:
        PlanError: the layers do not fit the depth.
    """
    from shoal.select.choose import manual_plan

    return manual_plan(model_ref, depth, layers, allow_last=allow_last)


def layer_count(depth: int, layers: int | str) -> int:
    """How many layers `layers` means: `8`, `"8"`, or a percentage of the depth such as `"30%"`.

    A percentage is rounded to the nearest whole layer (halves up) and is at least one layer, unless it is 0.

    Raises:
        UsageError: not a number, or not in 1 … depth-1.
    """
    from shoal.select.choose import count_layers

    return count_layers(depth, layers)


def get(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        UsageError: there is none.
    """
    from importlib import import_module

    from shoal.errors import UsageError

    if name not in REGISTRY:
        raise UsageError(
            f"unknown strategy {name!r}", where="strategy", fix=f"use one of {', '.join(REGISTRY)}"
        )
    found: Strategy = import_module(f"{__name__}.{name}").STRATEGY
    return found


def mergekit_yaml(plan: Plan, model_ref: str | None = None) -> str:
    """`plan` as a mergekit configuration; see `shoal.select.mergekit`."""
    from shoal.select import mergekit

    return mergekit.mergekit_yaml(plan, model_ref)
