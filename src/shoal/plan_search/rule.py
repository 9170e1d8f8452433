"""The rule of the search, on numbers alone: which plans hold on the validation split, and which are confirmed.

The least pruned plan is tested first, each at the full level, and the first that fails ends the sequence: the chance
of any false confirmation stays at 1 - confidence without a correction for many tests (Maurer, Hothorn & Lehmacher 1995;
Westfall & Krishen 2001, Journal of Statistical Planning and Inference 99, 25-40).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shoal.plan_search.budget import ROUNDING
from shoal.plan_search.relative_change import RelativeChange
from shoal.schema import Budget, Confirmation
from shoal.terms import FEW_CLUSTERS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the confirmation split says of one plan."""

    p_value: float | None
    """Of "it breaks the budget", with an unseen clip on which it fails; None where there is nothing to draw."""
    p_seen: float | None
    """The same over the clips seen alone."""
    holds: bool
    """On the clips seen, or by its value where that decides."""
    confirmed: bool
    """Also where an unseen clip is counted, with enough clusters in both splits."""


def held_on_validation(change: RelativeChange, budget: Budget) -> bool:
    """Whether the one-sided bound, or with `point` the value, is at most `max_increase`; True if that is not asked."""
    if budget.max_increase is None:
        return True
    judged = change.value if budget.point else change.upper(budget.confidence)
    return judged is not None and judged <= budget.max_increase


def confirm_in_sequence(
    changes: Iterable[RelativeChange], budget: Budget, limit: float, validation_clusters: int
) -> list[Verdict]:
    """Test plans that held on the validation split, the least pruned first, until one fails.

    Args:
        changes: on the confirmation split; one is taken only when all before it have passed.
        budget: what must be kept to.
        limit: relative change that is tested against.
        validation_clusters: speakers, or clips, that were drawn there.
    """
    verdicts: list[Verdict] = []
    can_confirm = validation_clusters >= FEW_CLUSTERS
    for change in changes:
        verdict = tested(change, budget, limit, can_confirm=can_confirm)
        verdicts.append(verdict)
        can_confirm = verdict.confirmed
        if not verdict.holds:
            break
    return verdicts


def tested(change: RelativeChange, budget: Budget, limit: float, *, can_confirm: bool) -> Verdict:
    """One test; where costs alone are bounded, or the value decides, it is for information."""
    p_value, p_seen = (change.p_value(limit, unseen=unseen) for unseen in (True, False))
    if budget.point or budget.max_increase is None:
        return Verdict(p_value, p_seen, held_on_validation(change, budget), confirmed=False)
    passed, holds = (p is not None and p <= 1 - budget.confidence + ROUNDING for p in (p_value, p_seen))
    return Verdict(
        p_value, p_seen, holds, confirmed=holds and passed and can_confirm and change.clusters >= FEW_CLUSTERS
    )


def chosen(tests: Sequence[Verdict | Confirmation]) -> int | None:
    """Which is chosen: the deepest that is confirmed, else the deepest that holds."""
    held = [index for index, test in enumerate(tests) if test.holds]
    confirmed = [index for index in held if tests[index].confirmed]
    return max(confirmed or held, default=None)
