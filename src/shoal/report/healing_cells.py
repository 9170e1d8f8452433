"""The cells of a healing document, put together by plan, and what may be said of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shoal.schema import Estimate, Healing, HealingCell, Plan
from shoal.schema.heal import NONE

LINEAR, RECEIVER, JOINT = "linear", "receiver", "joint"

Told: TypeAlias = Literal["lower", "higher", "alike", "unknown"]
"""What a difference of two scores says: `alike` where its interval holds 0, `unknown` without an interval."""
TURNED: dict[Told, Told] = {"lower": "higher", "higher": "lower", "alike": "alike", "unknown": "unknown"}
Effect: TypeAlias = Literal["better", "worse", "alike", "unknown"]


@dataclass(frozen=True)
class PlanCells:
    """One plan with its cells, the best score first."""

    plan: Plan
    cells: Sequence[HealingCell]

    @property
    def n(self) -> int:
        """Layers that go."""
        return len(self.plan.layers)

    @property
    def healed(self) -> list[HealingCell]:
        """Those that were healed."""
        return [cell for cell in self.cells if cell.target != NONE]

    @property
    def best(self) -> HealingCell | None:
        """The healed one with the best score."""
        return next(iter(self.healed), None)

    def find(self, target: str) -> HealingCell | None:
        """The cell of one target."""
        return next((cell for cell in self.cells if cell.target == target), None)


def by_plan(healing: Healing) -> list[PlanCells]:
    """The plans, the fewest layers first."""
    groups: dict[tuple[int, str, str, tuple[int, ...]], list[HealingCell]] = {}
    for cell in healing.cells:
        plan = cell.plan
        groups.setdefault((len(plan.layers), plan.strategy, plan.part, tuple(plan.layers)), []).append(cell)
    return [
        PlanCells(cells[0].plan, sorted(cells, key=lambda cell: cell.score.sign * cell.score.value.value))
        for _, cells in sorted(groups.items(), key=lambda item: item[0])
    ]


def leading_plan(healing: Healing, tolerance: float) -> tuple[PlanCells | None, bool]:
    """The plan a summary speaks of, and whether its best score is within the tolerance.

    Of the plans whose best healed score stays within it, the one that removes most; if none does, the mildest.
    """
    groups = [group for group in by_plan(healing) if group.best]
    within = [group for group in groups if loss(healing, group) <= tolerance]
    if within:
        return max(within, key=lambda group: (group.n, -loss(healing, group))), True
    return min(groups, key=lambda group: loss(healing, group), default=None), False


def loss(healing: Healing, group: PlanCells) -> float:
    """How much worse the best healed score is than that of the unpruned model, as a share of it."""
    base, sign = healing.baseline.value.value, healing.baseline.sign
    return sign * (group.best.score.value.value / base - 1) if group.best and base > 0 else float("inf")


def put_back(cell: HealingCell) -> int:
    """Layers that the target put back, such as one for each block."""
    return cell.layers - (cell.plan.depth - len(cell.plan.layers)) if cell.plan.part == "layer" else 0


def told(cell: HealingCell) -> Told:
    """What healing did to the score, as far as its paired interval says."""
    change = cell.bought.absolute if cell.bought else None
    if change is None or change.low is None or change.high is None:
        return "unknown"
    return "lower" if change.high < 0 else "higher" if change.low > 0 else "alike"


def effect(cell: HealingCell) -> Effect:
    """What healing did, whichever way the score runs."""
    rises = cell.score.higher_is_better
    effects: dict[Told, Effect] = {
        "lower": "worse" if rises else "better",
        "higher": "better" if rises else "worse",
        "alike": "alike",
        "unknown": "unknown",
    }
    return effects[told(cell)]


def against(cell: HealingCell, other: HealingCell) -> Told:
    """Whether a cell is lower or higher than another of the same plan.

    No paired interval of the two is stored, so they are told apart only where the intervals of what each bought over
    no healing do not overlap. Both hold the same unhealed score, which makes this stricter than a test of the two.
    """
    if other.target == NONE:
        return told(cell)
    if cell.target == NONE:
        return TURNED[told(other)]
    if cell.bought is None or other.bought is None:
        return _apart(cell.score.value, other.score.value)
    return _apart(cell.bought.absolute, other.bought.absolute)


def _apart(first: Estimate, second: Estimate) -> Told:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return "unknown"
    return "lower" if first.high < second.low else "higher" if first.low > second.high else "alike"
