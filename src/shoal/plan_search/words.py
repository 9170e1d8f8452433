"""The outcome of a search in words: why this plan and no shallower, or why none."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.evaluation.scores.base import Score
from shoal.plan_search.budget import only_costs
from shoal.schema import Budget, Confirmation, Estimate, Plan, Search, SearchStep
from shoal.wording import FEW_CLIPS, mark, plural

VALIDATION, CONFIRMATION = "on the validation split", "on unseen clips"


def reason(
    score: Score,
    budget: Budget,
    steps: Sequence[SearchStep],
    confirmations: Sequence[Confirmation],
    chosen: Plan | None,
) -> str:
    """One sentence or two.

    Args:
        score: what plans are judged by.
        budget: what they must keep to.
        steps: plans tried on the validation split, by number of layers.
        confirmations: plans tested on unseen clips.
        chosen: the outcome.
    """
    if not steps:
        return "No plan keeps to the bounds on costs." if _bounds_costs(budget) else "No layer can be removed."
    if chosen is None:
        return _why_none(score, steps, confirmations)
    if only_costs(budget):
        effect = _effect(score, confirmations[0].change)
        return f"No plan of fewer layers keeps to the bounds on costs. It {effect} {CONFIRMATION}."
    deeper = [step for step in steps if len(step.plan.layers) > len(chosen.layers)]
    return _why_no_shallower(score, deeper, confirmations)


def _why_none(score: Score, steps: Sequence[SearchStep], confirmations: Sequence[Confirmation]) -> str:
    if not confirmations:
        first = steps[0]
        return f"No plan holds: {_outcome(score, first)}."
    closest = min(confirmations, key=lambda test: test.change.value if test.p_value is None else test.p_value)
    count = sum(step.holds for step in steps)
    plans = "One plan" if count == 1 else f"{count} plans"
    held = f"{plans} held {VALIDATION}, and none {CONFIRMATION}"
    return f"{held}: there {_removing(closest.plan)} {_effect(score, closest.change)}{_p(closest)}."


def _why_no_shallower(score: Score, deeper: Sequence[SearchStep], confirmations: Sequence[Confirmation]) -> str:
    if not deeper:
        return "No shallower plan could be made."
    following = deeper[0]
    if not following.holds:
        return f"The next plan does not hold: {_outcome(score, following)}."
    tested = {tuple(test.plan.layers): test for test in confirmations}[tuple(following.plan.layers)]
    outcome = f"{_removing(tested.plan)} {_effect(score, tested.change)}{_p(tested)}"
    return f"The next plan held {VALIDATION}, but not {CONFIRMATION}: {outcome}."


def _outcome(score: Score, step: SearchStep) -> str:
    return f"{_removing(step.plan)} {_effect(score, step.change)} {VALIDATION}"


def _removing(plan: Plan) -> str:
    """`removing layer 13 alone`, `removing the attention of 3 layers`."""
    of = "" if plan.part == "layer" else f"the {plan.part} of "
    if len(plan.layers) == 1:
        return f"removing {of}layer {plan.layers[0]} alone"
    return f"removing {of}{len(plan.layers)} layers"


def _effect(score: Score, change: Estimate) -> str:
    """`raises WER by 31.0 % [24.0 %, 39.0 %]`; changes are stored with worse as positive."""
    if change.value == 0:
        return f"leaves {score.name} as it is{_between(change, 1)}"
    sign = 1 if change.value > 0 else -1
    verb = "lowers" if (sign > 0) is score.higher_is_better else "raises"
    return f"{verb} {score.name} by {100 * sign * change.value:.1f} %{_between(change, sign)}"


def _between(change: Estimate, sign: int) -> str:
    if change.low is None or change.high is None:
        return ""
    low, high = sorted((100 * sign * change.low, 100 * sign * change.high))
    return f" [{low:.1f} %, {high:.1f} %]{mark(change)}"


def _p(confirmation: Confirmation) -> str:
    return "" if confirmation.p_holm is None else f" (p = {confirmation.p_holm:.3f} after Holm's correction)"


def how_sure(search: Search) -> str:
    """What the test on unseen clips is worth: it confirms a plan only where clips are not few and it was a test."""
    if search.chosen is None:
        return ""
    clips = search.confirmation_clips
    test = next((test for test in search.confirmations if test.plan == search.chosen), None)
    if test is None or test.p_holm is None or search.budget.point or only_costs(search.budget):
        return f"measured on {plural(clips, 'unseen clip')}, not tested"
    if clips < FEW_CLIPS:
        return f"passed the test on {plural(clips, 'unseen clip')}, too few to confirm it{_p(test)}"
    return f"confirmed on {plural(clips, 'unseen clip')}{_p(test)}"


def budget_words(budget: Budget, score_name: str) -> str:
    """All bounds, for a person."""
    how = "the value" if budget.point else f"at {100 * budget.confidence:g} % confidence"
    bounds = [
        f"{score_name} worse by at most {100 * budget.max_increase:g} % ({how})"
        if budget.max_increase is not None
        else "",
        f"at most {budget.max_layers} layers" if budget.max_layers is not None else "",
        f"at most {budget.max_milliseconds:g} ms a clip" if budget.max_milliseconds is not None else "",
        f"at most {budget.max_megabytes:g} MB" if budget.max_megabytes is not None else "",
    ]
    return ", ".join(filter(None, bounds))


def _bounds_costs(budget: Budget) -> bool:
    return only_costs(budget.model_copy(update={"max_increase": None}))
