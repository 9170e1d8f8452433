"""Sentences about healing, made from its cells and no bolder than these."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import wording
from shoal.report.healing_cells import (
    JOINT,
    LINEAR,
    RECEIVER,
    PlanCells,
    against,
    by_plan,
    leading_plan,
    put_back,
    told,
)
from shoal.report.main_score import RECOGNITION, TOLERANCE
from shoal.schema import Healing, HealingCell
from shoal.schema.heal import NONE

CHANCE = "without intervals nobody can tell whether that is chance"
UNTOLD = {"alike": "not told apart", "unknown": CHANCE}
EFFECTS = {
    "lower": "{gone}, {target} healing takes {rate} from {before} to {after}{price}",
    "higher": "{gone}, healing by {target}{lowest} raises {rate} from {before} to {after}",
    "alike": "{gone}, healing by {target}{lowest} is not told apart from none: {rate} is {before} without and {after} "
    "with it, {change}",
    "unknown": f"{{gone}}, {{rate}} is {{before}} without healing and {{after}} with {{target}}{{lowest}}; {CHANCE}",
}
NOT_KNOWN = "{gone}, {rate} is {after} with {target}{lowest}; without healing it was not measured"
FITS = {
    "lower": "takes it to {after}",
    "higher": "raises it to {after}",
    "alike": "is not told apart from no healing ({after})",
    "unknown": "gives {after}",
}


def rate_name(healing: Healing) -> str:
    """What the rates are called: errors of recognition, mere edits of any other task."""
    return "WER" if healing.task == RECOGNITION else "edit rate"


def target_title(name: str) -> str:
    """What a target trains, in a few words."""
    from shoal.healing.targets import TARGETS  # needs torch, so not before there is something healed

    if name == NONE:
        return "nothing"
    return TARGETS[name].title if name in TARGETS else "not known to this Shoal"


def target_order(names: Sequence[str]) -> list[str]:
    """Each name once: no healing, then the targets in the order of their registry, then any others."""
    from shoal.healing.targets import TARGETS

    known = [NONE, *TARGETS]
    others = sorted({*names} - {*known})
    return [name for name in (*known, *others) if name in names]


def sentences(healing: Healing) -> list[str]:
    """The summary first, then what the readers ask: receiver or joint, linear or nothing."""
    group, _ = leading_plan(healing, TOLERANCE)
    groups = by_plan(healing)
    found = [
        effect(healing, group) if group else _nothing_healed(healing, groups),
        _receiver_or_joint(groups),
        _linear_or_nothing(groups),
        _more_layers(healing),
    ]
    return [sentence for sentence in found if sentence]


def headline_words(healing: Healing) -> tuple[str, str]:
    """Verdict and explanation for the top of a report without scores."""
    group, within = leading_plan(healing, TOLERANCE)
    if group is None or group.best is None:
        return "What healing buys was not measured", _nothing_healed(healing, by_plan(healing))
    return _verdict(healing, group), " ".join(
        [effect(healing, group), _why_this(healing, within), _unpruned(healing)]
    )


def _verdict(healing: Healing, group: PlanCells) -> str:
    assert group.best is not None
    before, gone = group.find(NONE), _gone(group)
    if before is None or told(group.best) != "lower":
        return f"{gone}, healing is not shown to help"
    return (
        f"{gone}, healing takes {rate_name(healing)} from {wording.percent(before.wer.value)} to "
        f"{wording.percent(group.best.wer.value)}"
    )


def _why_this(healing: Healing, within: bool) -> str:
    rate, limit = rate_name(healing), f"+{wording.percent(TOLERANCE, 0)}"
    tried = wording.plural(sum(1 for each in by_plan(healing) if each.best), "healed plan")
    if within:
        return f"Of {tried}, this one removes the most layers while {rate} is within {limit} of the unpruned model."
    return f"Of {tried}, this one has the lowest {rate}; none is within {limit} of the unpruned model."


def _unpruned(healing: Healing) -> str:
    return f"The unpruned model: {wording.percent_estimate(healing.baseline_wer)}."


def effect(healing: Healing, group: PlanCells) -> str:
    """What the best target of a plan does to the rate, with what it took; then the fit without training."""
    best, before = group.best, group.find(NONE)
    assert best is not None
    facts = {
        "gone": _gone(group),
        "target": best.target,
        "rate": rate_name(healing),
        "after": wording.percent_estimate(best.wer),
        "before": wording.percent_estimate(before.wer) if before else "",
        "lowest": f" (the lowest of {len(group.healed)} targets)" if len(group.healed) > 1 else "",
        "change": wording.absolute_change(best.bought.absolute) if best.bought else "",
        "price": _price(best),
    }
    sentence = EFFECTS[told(best)] if before else NOT_KNOWN
    return f"{sentence.format(**facts)}{_fit(group)}."


def _price(best: HealingCell) -> str:
    """What was won back, and the time it took."""
    won = f", {wording.percent_estimate(best.recovered)} of what pruning cost" if best.recovered else ""
    return f"{won}, in {wording.duration(best.seconds)}"


def _fit(group: PlanCells) -> str:
    linear = group.find(LINEAR)
    if linear is None or linear is group.best:
        return ""
    return (
        f"; linear, without training, {FITS[told(linear)].format(after=wording.percent_estimate(linear.wer))}"
    )


def _gone(group: PlanCells) -> str:
    part = wording.PART_OF[group.plan.part]
    return f"With {part}{group.n} of {group.plan.depth} layers gone"


def _nothing_healed(healing: Healing, groups: Sequence[PlanCells]) -> str:
    if not groups:
        return "Nothing was measured: the document holds no models."
    rates = [
        f"{wording.percent_estimate(group.cells[0].wer)} {_place(group, groups)}" for group in groups[:4]
    ]
    return f"Nothing was healed: {rate_name(healing)} is {wording.listing(rates)}."


def _place(group: PlanCells, groups: Sequence[PlanCells]) -> str:
    """Such as `with 4 layers gone`; with their names where another plan removes as many."""
    same = sum(1 for each in groups if each.n == group.n) > 1
    name = f" ({group.plan.strategy}: {wording.removed_names(group.plan)})" if same else ""
    return f"with {wording.plural(group.n, 'layer')} gone{name}"


def _receiver_or_joint(groups: Sequence[PlanCells]) -> str:
    pairs = [(group, group.find(RECEIVER), group.find(JOINT)) for group in groups]
    found = [
        (_place(group, groups), _rates(receiver, joint), _which(receiver, joint))
        for group, receiver, joint in pairs
        if receiver and joint
    ]
    return _clauses("Receiver against joint", found)


def _rates(first: HealingCell, second: HealingCell) -> str:
    return f"{wording.percent_estimate(first.wer)} against {wording.percent_estimate(second.wer)}"


def _which(first: HealingCell, second: HealingCell) -> str:
    lower = {"lower": first.target, "higher": second.target}
    found = against(first, second)
    return f"{lower[found]} is lower" if found in lower else UNTOLD[found]


def _linear_or_nothing(groups: Sequence[PlanCells]) -> str:
    pairs = [(group, group.find(LINEAR)) for group in groups]
    found = [
        (_place(group, groups), wording.absolute_change(linear.bought.absolute), UNTOLD.get(told(linear), ""))
        for group, linear in pairs
        if linear and linear.bought
    ]
    return _clauses("Linear, a fit without training, against no healing", found)


def _clauses(what: str, found: Sequence[tuple[str, str, str]]) -> str:
    """One sentence of place, numbers and what may be said of them, for each plan."""
    if not found:
        return ""
    clauses = [
        f"{place} {numbers}" + (f", {said}" if said and said != CHANCE else "")
        for place, numbers, said in found
    ]
    end = f"; {CHANCE}" if any(said == CHANCE for _, _, said in found) else ""
    return f"{what}: {'; '.join(clauses)}{end}."


def _more_layers(healing: Healing) -> str:
    names = target_order([cell.target for cell in healing.cells if put_back(cell) > 0])
    if not names:
        return ""
    verb, its = ("puts", "its models have") if len(names) == 1 else ("put", "their models have")
    return (
        f"Not like for like: {wording.listing(names)} {verb} one layer back for each block, so {its} more layers "
        "than the others."
    )
