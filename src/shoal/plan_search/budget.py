"""What a plan may cost, and whether it keeps to that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shoal.errors import UsageError
from shoal.schema import Budget, ModelInfo

USUAL_INCREASE = {"asr": 0.25}
"""Relative rise of the error rate that is taken where none is asked for (arXiv 2603.05121)."""
OTHER_INCREASE = 0.10
ROUNDING = 1e-12
"""1 - 0.9 is not 0.1."""


@dataclass(frozen=True)
class Costs:
    """What a model without some layers costs."""

    layers: int
    megabytes: float | None = None
    milliseconds: float | None = None
    milliseconds_bound: float | None = None
    """The one-sided upper bound at the budget's confidence."""

    def within(self, budget: Budget) -> bool:
        """Whether no bound on costs is broken; of the latency by its bound, or with `point` by its value."""
        pairs = (
            (self.layers, budget.max_layers),
            (self.megabytes, budget.max_megabytes),
            (self.milliseconds if budget.point else self.milliseconds_bound, budget.max_milliseconds),
        )
        return all(bound is None or (cost is not None and cost <= bound) for cost, bound in pairs)


def megabytes(info: ModelInfo, removed: Iterable[int], item_size: int) -> float:
    """Size of the weights without `removed`, at `item_size` bytes each, 10^6 bytes."""
    gone = sum(info.decoder_layer_parameters[layer] for layer in removed)
    return (info.total_parameters - gone) * item_size / 1e6


def only_costs(budget: Budget) -> bool:
    """Whether nothing but costs is bounded, so that the score is for information."""
    bounds = (budget.max_layers, budget.max_megabytes, budget.max_milliseconds)
    return budget.max_increase is None and bounds != (None, None, None)


def usual_increase(task_name: str) -> float:
    """The relative rise of an error rate, or fall of a score, that is taken where none is asked for."""
    return USUAL_INCREASE.get(task_name, OTHER_INCREASE)


def with_usual_increase(budget: Budget, task_name: str) -> Budget:
    """The budget with the usual `max_increase` if it bounds nothing else."""
    if budget.max_increase is not None or only_costs(budget):
        return budget
    return budget.model_copy(update={"max_increase": usual_increase(task_name)})


def check_costs(budget: Budget, info: ModelInfo, item_size: int, *, whole: bool, removable: Sequence[int]) -> None:
    """Refuse bounds on costs before anything is computed.

    Args:
        budget: what is asked.
        info: of the unpruned model.
        item_size: bytes a weight.
        whole: whether whole layers go.
        removable: the layers that may go; one layer stays in any case.

    Raises:
        UsageError: a bound that no plan can keep to, or nothing but bounds that the unpruned model keeps to.
    """
    if not whole and (budget.max_layers, budget.max_megabytes) != (None, None):
        raise UsageError(
            "these count whole layers, and only a part of each is to go",
            where="--max-layers or --max-mb",
            fix="bound --max-increase or --max-ms",
        )
    heaviest = sorted(removable, key=lambda layer: -info.decoder_layer_parameters[layer])[: info.depth - 1]
    smallest = Costs(info.depth - len(heaviest), megabytes(info, heaviest, item_size))
    pairs = (("layers", budget.max_layers, smallest.layers), ("mb", budget.max_megabytes, smallest.megabytes))
    for name, bound, least in pairs:
        if bound is not None and least is not None and bound < least:
            fix = f"the least that can be reached is {math.ceil(least)}"
            raise UsageError(f"{bound:g} cannot be kept to", where=f"--max-{name}", fix=fix)
    if budget.max_milliseconds is None:
        check_layers_must_go(budget, Costs(info.depth, megabytes(info, (), item_size)))


def check_layers_must_go(budget: Budget, full: Costs) -> None:
    """Make sure that there is something to find.

    Raises:
        UsageError: only costs are bounded, and the unpruned model keeps to them.
    """
    if only_costs(budget) and full.within(budget):
        raise UsageError(
            "the unpruned model keeps to these costs already",
            where="budget",
            fix="bound them lower, or find out how shallow it can be with --max-increase",
        )


def check_replicates(budget: Budget, replicates: int) -> None:
    """Make sure that a bound on the validation split lies within its replicates.

    Raises:
        UsageError: too few replicates.
    """
    if budget.point or budget.max_increase is None:
        return
    needed = math.ceil(1 / (1 - budget.confidence) - ROUNDING) - 1
    if replicates < needed:
        raise UsageError(
            f"{replicates} are too few for a bound at confidence {budget.confidence:g}",
            where="--replicates",
            fix=f"give {needed} or more",
        )
