"""The outcome of a search in words: why this plan and no shallower, or why none."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.evaluation.scores.base import Score
from shoal.plan_search.budget import only_costs
from shoal.schema import Budget, Confirmation, Estimate, Plan, Search, SearchStep
from shoal.schema.record import Drawn
from shoal.terms import FEW_CLUSTERS
from shoal.wording import drawn_over, mark, plural

VALIDATION, CONFIRMATION = "on the validation split", "on unseen clips"


def reason(
    score: Score,
    budget: Budget,
    steps: Sequence[SearchStep],
    confirmations: Sequence[Confirmation],
    chosen: Confirmation | None,
) -> str:
    """One sentence or two.

    Args:
        score: what plans are judged by.
        budget: what they must keep to.
        steps: plans tried on the validation split, by number of layers.
        confirmations: plans tested on unseen clips.
        chosen: the test of the one that was chosen.
    """
    if not steps:
        return "No plan keeps to the bounds on costs." if _bounds_costs(budget) else "No layer can be removed."
    if chosen is None:
        return _why_none(score, steps, confirmations)
    if only_costs(budget):
        effect = _effect(score, chosen.change)
        return f"No plan of fewer layers keeps to the bounds on costs. It {effect} {CONFIRMATION}."
    deeper = [step for step in steps if len(step.plan.layers) > len(chosen.plan.layers)]
    return _why_no_shallower(score, deeper, confirmations)


def _why_none(score: Score, steps: Sequence[SearchStep], confirmations: Sequence[Confirmation]) -> str:
    if not confirmations:
        return f"No plan holds: {_outcome(score, steps[0])}."
    first, count = confirmations[0], sum(step.holds for step in steps)
    held = f"One plan held {VALIDATION}" if count == 1 else f"{count} plans held {VALIDATION}"
    tested = "not" if count == 1 else "the least pruned of those tested did not"
    effect = f"{_removing(first.plan)} {_effect(score, first.change)}{_p(first)}"
    return f"{held}, but {tested} {CONFIRMATION}: there {effect}."


def _why_no_shallower(score: Score, deeper: Sequence[SearchStep], confirmations: Sequence[Confirmation]) -> str:
    if not deeper:
        return "No shallower plan could be made."
    following = deeper[0]
    if not following.holds:
        return f"The next plan does not hold: {_outcome(score, following)}."
    tested = {tuple(test.plan.layers): test for test in confirmations}[tuple(following.plan.layers)]
    outcome = f"{_removing(tested.plan)} {_effect(score, tested.change)}{_p(tested)}"
    if tested.holds:
        return f"A deeper plan holds {CONFIRMATION}, but is not confirmed: {outcome}."
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


def _p(test: Confirmation) -> str:
    if test.p_holm is not None:
        return f" (p = {test.p_holm:.3f} after Holm's correction)"
    if test.p_value is None or test.p_seen is None:
        return ""
    return f" (p = {test.p_value:.3f}; on the clips seen alone {test.p_seen:.3f})"


def how_sure(search: Search) -> str:
    """What the tests on unseen clips are worth: a plan is confirmed, or why it is not."""
    if search.chosen is None:
        return ""
    clips = plural(search.confirmation_clips, "unseen clip")
    if search.confirmation_drawn is not None and search.confirmation_drawn.caution == "one speaker":
        clips += " of one speaker"
    test = test_of(search, search.chosen)
    if test is None or test.p_seen is None or search.budget.point or only_costs(search.budget):
        return f"measured on {clips}, not tested"
    if search.confirmed:
        return f"confirmed on {clips}{_p(test)}"
    return f"not confirmed: it holds on {clips}{_p(test)}, but {_doubt(search, test)}"


def _doubt(search: Search, test: Confirmation) -> str:
    """Why a plan that holds on the clips seen is not confirmed."""
    if test.p_value is None:
        return "its test counted no unseen loop; run the search again, which decodes nothing anew"
    splits = {"validation": search.validation_drawn, "confirmation": search.confirmation_drawn}
    few = [too_few_clusters(name, drawn) for name, drawn in splits.items() if drawn is not None]
    if any(few):
        return "; ".join(filter(None, few))
    step = next((step for step in search.steps if step.plan.layers == test.plan.layers), None)
    needed = step.clips_needed if step else None
    if needed is None:
        return "a loop on another clip could cost more"
    return f"a loop on another could cost more: about {plural(needed, 'clip')} would be needed to confirm it"


def too_few_clusters(split: str, drawn: Drawn) -> str:
    """`12 speakers in the confirmation split are fewer than the 20 that are needed`; empty where they are enough."""
    if drawn.clusters >= FEW_CLUSTERS:
        return ""
    return f"{drawn_over(drawn, 'speaker')} in the {split} split are fewer than the {FEW_CLUSTERS} that are needed"


def test_of(search: Search, plan: Plan) -> Confirmation | None:
    """The test of a plan on unseen clips."""
    return next(
        (test for test in search.confirmations if (test.plan.layers, test.plan.part) == (plan.layers, plan.part)), None
    )


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
