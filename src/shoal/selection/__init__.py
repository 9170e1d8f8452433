"""Choose the layers to remove, from an audit.

Adding a strategy: a file with a `Strategy` bound to `STRATEGY`, and its name in `REGISTRY`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from shoal.schema import Audit, InputKind, Part, Plan, Scope

if TYPE_CHECKING:
    from shoal.selection.strategy import Strategy

REGISTRY: tuple[str, ...] = ("contiguous", "deepest", "uniform", "random", "lowest", "consensus")
"""The modules of this folder that hold a strategy."""

__all__ = ["REGISTRY", "get", "layer_count", "manual", "mergekit_yaml", "select"]


def select(
    audit: Audit | Sequence[Audit],
    layers: int | str,
    *,
    strategy: str | None = None,
    input: InputKind | None = None,
    scope: Scope | None = None,
    metric: str | None = None,
    part: Part = "layer",
    seed: int = 0,
    allow_last: bool = False,
    combine: Literal["mean", "worst"] = "mean",
    weights: Sequence[float] | None = None,
    source_path: str | Sequence[str] = "",
) -> Plan:
    """Choose layers to remove.

    Args:
        audit: the measurement to choose from; several of one model (tasks, languages) share a plan.
        layers: how many, see `layer_count`.
        strategy: a name in `REGISTRY`; default `contiguous`, of several audits `consensus`, of a part `lowest`.
        input: `speech` or `text`; default is speech if it was measured.
        scope: which positions count. The default is every position, audio and text alike, as in ShortGPT;
            Gromov et al. (2403.17887) look at the last position of each sequence alone, which is `last`. Gradient and
            ablation have a scope of their own, the tokens whose loss they take.
        metric: what to rank by; default is the strategy's own, of a part `ablation`.
        part: take the `attention` or the `mlp` of the layers alone, ranked by gradient or ablation.
        seed: of a strategy that draws.
        allow_last: the last layer (or that part of it) may go too.
        combine: how several audits are joined, see `shoal.selection.consensus`.
        weights: how much each of several audits counts; default alike.
        source_path: where the audit lies, for the record; of several one each.

    Returns:
        The plan. A block has its distance with interval; `stability` is known for `contiguous` by `angular` only.

    Raises:
        UsageError: an unknown strategy, metric, input, scope or part, a number of layers that does not fit, a metric
            that was not measured, or audits that cannot share a plan.
    """
    from shoal.selection.choose import choose

    audits = [audit] if isinstance(audit, Audit) else list(audit)
    paths = [source_path] * len(audits) if isinstance(source_path, str) else list(source_path)
    usual = "consensus" if len(audits) > 1 else "contiguous" if part == "layer" else "lowest"
    return choose(
        audits,
        layers,
        get(strategy or usual),
        input=input,
        scope=scope,
        metric=metric,
        part=part,
        seed=seed,
        allow_last=allow_last,
        combine=combine,
        weights=weights,
        source_paths=paths,
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
    from shoal.selection.choose import manual_plan

    return manual_plan(model_ref, depth, layers, allow_last=allow_last)


def layer_count(depth: int, layers: int | str) -> int:
    """How many layers `layers` means: `8`, `"8"`, or a percentage of the depth such as `"30%"`.

    A percentage is rounded to the nearest whole layer (halves up) and is at least one layer, unless it is 0.

    Raises:
        UsageError: not a number, or not in 1 … depth-1.
    """
    from shoal.selection.choose import count_layers

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
    """`plan` as a mergekit configuration; see `shoal.selection.mergekit`."""
    from shoal.selection import mergekit

    return mergekit.mergekit_yaml(plan, model_ref)
