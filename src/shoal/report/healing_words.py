"""Sentences about healing, made from its cells and no bolder than these."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import wording
from shoal.healing.targets import TARGETS
from shoal.report.bundle import Bundle
from shoal.report.healing_cells import (
    JOINT,
    LINEAR,
    RECEIVER,
    PlanCells,
    against,
    by_plan,
    effect,
    leading_plan,
    put_back,
    told,
)
from shoal.report.units import TOLERANCE, tolerance_words
from shoal.schema import Healing, HealingCell, MeasuredScore
from shoal.schema.heal import NONE
from shoal.score_tables import delta_text, plain_value, value_text

CHANCE = "without intervals nobody can tell whether that is chance"
UNTOLD = {"alike": "not told apart", "unknown": CHANCE}
EFFECTS = {
    "better": "{gone}, {target} healing takes {score} from {before} to {after}{price}",
    "worse": "{gone}, healing by {target}{best} {worsens} {score} from {before} to {after}",
    "alike": "{gone}, healing by {target}{best} is not told apart from none: {score} is {before} without and {after} "
    "with it, {change}",
    "unknown": f"{{gone}}, {{score}} is {{before}} without healing and {{after}} with {{target}}{{best}}; {CHANCE}",
}
NOT_KNOWN = "{gone}, {score} is {after} with {target}{best}; without healing it was not measured"
FITS = {
    "better": "takes it to {after}",
    "worse": "{worsens} it to {after}",
    "alike": "is not told apart from no healing ({after})",
    "unknown": "gives {after}",
}


def target_title(name: str) -> str:
    """What a target trains, in a few words."""
    if name == NONE:
        return "nothing"
    return TARGETS[name].title if name in TARGETS else "not known to this Shoal"


def target_order(names: Sequence[str]) -> list[str]:
    """Each name once: no healing, then the targets in the order of their registry, then any others."""
    known = [NONE, *TARGETS]
    others = sorted({*names} - {*known})
    return [name for name in (*known, *others) if name in names]


def sentences(healing: Healing) -> list[str]:
    """The summary first, then what the readers ask: receiver or joint, linear or nothing."""
    group, _ = leading_plan(healing, TOLERANCE)
    groups = by_plan(healing)
    answers = (
        effect_words(healing, group) if group else _nothing_healed(healing, groups),
        _receiver_or_joint(groups),
        _linear_or_nothing(groups),
        _more_layers(healing),
    )
    return [sentence for sentence in answers if sentence]


def headline_words(healing: Healing) -> tuple[str, str]:
    """Verdict and explanation for the top of a report without scores."""
    group, within = leading_plan(healing, TOLERANCE)
    if group is None or group.best is None:
        return "What healing gains was not measured", _nothing_healed(healing, by_plan(healing))
    unpruned = f"The unpruned model: {value_text(healing.baseline)}."
    return _verdict(healing, group), " ".join([effect_words(healing, group), _why_this(healing, within), unpruned])


def _verdict(healing: Healing, group: PlanCells) -> str:
    assert group.best is not None
    before, gone = group.find(NONE), _gone(group)
    if before is None or effect(group.best) != "better":
        return f"{gone}, healing is not shown to help"
    return (
        f"{gone}, healing takes {healing.score_name} from {plain_value(before.score)} to "
        f"{plain_value(group.best.score)}"
    )


def _why_this(healing: Healing, within: bool) -> str:
    name, limit = healing.score_name, tolerance_words(higher_is_better=healing.baseline.higher_is_better)
    tried = wording.plural(sum(1 for group in by_plan(healing) if group.best), "healed plan")
    if within:
        return f"Of {tried}, this one removes the most layers while {name} is within {limit} of the unpruned model."
    best = f"the {_best(healing.baseline)} {name}"
    return f"Of {tried}, this one has {best}; none is within {limit} of the unpruned model."


def effect_words(healing: Healing, group: PlanCells) -> str:
    """What the best target of a plan does to the score, with what it took; then the fit without training."""
    best, before = group.best, group.find(NONE)
    assert best is not None
    facts = {
        "gone": _gone(group),
        "target": best.target,
        "score": healing.score_name,
        "after": value_text(best.score),
        "before": value_text(before.score) if before else "",
        "best": f" (the {_best(best.score)} of {len(group.healed)} targets)" if len(group.healed) > 1 else "",
        "worsens": _worsens(best.score),
        "change": delta_text(best.score, best.bought),
        "price": _price(best),
    }
    sentence = EFFECTS[effect(best)] if before else NOT_KNOWN
    return f"{sentence.format(**facts)}{_fit(group)}."


def _best(score: MeasuredScore) -> str:
    return "highest" if score.higher_is_better else "lowest"


def _worsens(score: MeasuredScore) -> str:
    return "lowers" if score.higher_is_better else "raises"


def _price(best: HealingCell) -> str:
    """What was won back, the time it took, and on how much it was fitted."""
    won = f", {wording.percent_estimate(best.recovered)} of what pruning cost" if best.recovered else ""
    fitted = wording.fitted_on(best.fitted_clips, best.fitted_positions) if best.fitted_clips else ""
    return f"{won}, in {wording.duration(best.seconds)}" + (f", fitted on {fitted}" if fitted else "")


def _fit(group: PlanCells) -> str:
    linear = group.find(LINEAR)
    if linear is None or linear is group.best:
        return ""
    words = FITS[effect(linear)].format(after=value_text(linear.score), worsens=_worsens(linear.score))
    return f"; linear, without training, {words}"


def _gone(group: PlanCells) -> str:
    part = wording.PART_OF[group.plan.part]
    return f"With {part}{group.n} of {group.plan.depth} layers gone"


def _nothing_healed(healing: Healing, groups: Sequence[PlanCells]) -> str:
    if not groups:
        return "Nothing was measured: the document holds no models."
    values = [f"{value_text(group.cells[0].score)} {_removed(group, groups)}" for group in groups[:4]]
    return f"Nothing was healed: {healing.score_name} is {wording.listing(values)}."


def _removed(group: PlanCells, groups: Sequence[PlanCells]) -> str:
    """Such as `with 4 layers gone`; with their names where another plan removes as many."""
    same = sum(1 for other in groups if other.n == group.n) > 1
    name = f" ({group.plan.strategy}: {wording.removed_names(group.plan)})" if same else ""
    return f"with {wording.plural(group.n, 'layer')} gone{name}"


def _receiver_or_joint(groups: Sequence[PlanCells]) -> str:
    pairs = [(group, group.find(RECEIVER), group.find(JOINT)) for group in groups]
    results = [
        (
            _removed(group, groups),
            f"{value_text(receiver.score)} against {value_text(joint.score)}",
            _which(receiver, joint),
        )
        for group, receiver, joint in pairs
        if receiver and joint
    ]
    return _clauses("Receiver against joint", results)


def _which(first: HealingCell, second: HealingCell) -> str:
    lower = {"lower": first.target, "higher": second.target}
    difference = against(first, second)
    return f"{lower[difference]} is lower" if difference in lower else UNTOLD[difference]


def _linear_or_nothing(groups: Sequence[PlanCells]) -> str:
    pairs = [(group, group.find(LINEAR)) for group in groups]
    results = [
        (_removed(group, groups), delta_text(linear.score, linear.bought), UNTOLD.get(told(linear), ""))
        for group, linear in pairs
        if linear and linear.bought
    ]
    return _clauses("Linear, a fit without training, against no healing", results)


def _clauses(subject: str, results: Sequence[tuple[str, str, str]]) -> str:
    """One sentence of what was removed, numbers and what may be said of them, for each plan."""
    if not results:
        return ""
    clauses = [
        f"{removed} {numbers}" + (f", {verdict}" if verdict and verdict != CHANCE else "")
        for removed, numbers, verdict in results
    ]
    end = f"; {CHANCE}" if any(verdict == CHANCE for _, _, verdict in results) else ""
    return f"{subject}: {'; '.join(clauses)}{end}."


def _more_layers(healing: Healing) -> str:
    names = target_order([cell.target for cell in healing.cells if put_back(cell) > 0])
    if not names:
        return ""
    verb, its = ("puts", "its models have") if len(names) == 1 else ("put", "their models have")
    return (
        f"Not like for like: {wording.listing(names)} {verb} one layer back for each block, so {its} more layers "
        "than the others."
    )


def limits(bundle: Bundle) -> list[str]:
    """What is not said: how little was tried, whether voices are shared, and that losses are no scores."""
    healings = [named.document for named in bundle.healings if named.document.cells]
    notes = [note for healing in healings for note in (_tried(healing), _speakers(healing), _warned(healing))]
    if (bundle.heals or bundle.trainings) and not bundle.scores and not bundle.healings:
        notes.append("Records of training hold losses only: how many words a model gets wrong is not in them.")
    return list(dict.fromkeys(note for note in notes if note))


def cautions(bundle: Bundle) -> list[str]:
    """What makes the numbers of healing look better than they are."""
    trained_on_test = any(
        named.document.data.fingerprint and named.document.data.fingerprint == named.document.train_data.fingerprint
        for named in bundle.healings
    )
    return ["The models were healed on the clips they were tested on."] if trained_on_test else []


def _tried(healing: Healing) -> str:
    data = healing.train_data
    speakers = "" if data.speakers is None else f", {wording.plural(data.speakers, 'speaker')}"
    steps = max((cell.steps for cell in healing.cells), default=0)
    languages = f", {wording.listing(data.languages)}" if data.languages else ""
    return (
        f"Healing was tried on {wording.plural(data.clips, 'clip')} ({wording.duration(data.seconds)}{speakers}"
        f"{languages}) for at most {wording.plural(steps, 'step')}; each row is one run. Longer training, other clips "
        "or another seed may order the targets differently, and intervals do not cover that."
    )


def _warned(healing: Healing) -> str:
    """The first warning of a cell, and how many there are."""
    warnings = [f"{cell.plan.name}, {cell.target}: {note}" for cell in healing.cells for note in cell.warnings]
    more = f" ({len(warnings) - 1} more like it)" if len(warnings) > 1 else ""
    return f"{warnings[0]}{more}." if warnings else ""


def _speakers(healing: Healing) -> str:
    shared = healing.settings.get("shared_speakers")
    if isinstance(shared, int) and not isinstance(shared, bool):
        if shared == 0:
            return ""
        return f"{wording.plural(shared, 'speaker')} of the test clips also spoke clips that were healed on."
    return "Whether the test clips have speakers that were also healed on is not recorded."
