"""The top of the page: what the data say, in a few sentences, and what they do not say."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import wording
from shoal.report import healing_words, limits, search, tiles
from shoal.report.bundle import Bundle, baseline
from shoal.report.healing_cells import leading_plan
from shoal.report.parts import Tile
from shoal.report.units import TOLERANCE, tolerance_words
from shoal.schema import MeasuredScore, Plan, SystemScores
from shoal.score_tables import relative_text, removed_words, value_text


@dataclass(frozen=True)
class Scored:
    """A pruned system and what its task is judged by (None: not scored)."""

    system: SystemScores
    name: str
    score: MeasuredScore | None

    @property
    def whole(self) -> bool:
        """Whether whole layers go, not only their attention or MLP."""
        return self.system.plan is None or self.system.plan.part == "layer"

    def loss(self, *, upper: bool) -> float:
        """Relative loss, or the upper end of its interval; infinite where it is not known."""
        estimate = self.score.worsening if self.score else None
        bound = None if estimate is None else estimate.high if upper else estimate.value
        return float("inf") if bound is None else bound

    @property
    def change(self) -> str:
        """Relative change of the score as it is written."""
        return relative_text(self.score)

    @property
    def removes(self) -> str:
        """The layers, or what of them, in words."""
        return removed_words(self.system)


@dataclass(frozen=True)
class Affordable(Scored):
    """The deepest cut within the tolerance, and whether its whole interval is within it."""

    certain: bool


@dataclass(frozen=True)
class Headline:
    """View of the top of the page."""

    verdict: str
    explanation: str
    warning: str
    """Of a model that answers in speech; empty for any other, and where that was tested."""
    tiles: list[Tile]
    untested: list[str]
    cautions: list[str]
    removed: list[int]
    removed_words: str
    """For those who do not see the stack."""
    depth: int | None


def build(bundle: Bundle) -> Headline:
    """The headline of a bundle."""
    pruned = scored(bundle)
    found = affordable(pruned)
    verdict, explanation = _words(bundle, found, pruned)
    removed, removed_words = _removed(bundle, found, pruned)
    return Headline(
        verdict=verdict,
        explanation=explanation,
        tiles=tiles.build(bundle, found.system if found else None),
        warning=limits.speech_warning(bundle),
        untested=limits.untested(bundle),
        cautions=limits.cautions(bundle),
        removed=removed,
        removed_words=removed_words,
        depth=bundle.depth,
    )


def _removed(bundle: Bundle, found: Affordable | None, pruned: list[Scored]) -> tuple[list[int], str]:
    """The layers that the headline speaks of, and what of them goes in words."""
    if found:
        return found.system.removed, found.removes
    plan = None if pruned else _searched_or_healed(bundle)
    return (plan.layers, wording.removed_names(plan)) if plan else ([], "")


def _searched_or_healed(bundle: Bundle) -> Plan | None:
    if bundle.searches:
        return bundle.searches[0].document.chosen
    group, _ = leading_plan(bundle.healings[0].document, TOLERANCE) if bundle.healings else (None, False)
    return group.plan if group else None


def _words(bundle: Bundle, found: Affordable | None, pruned: list[Scored]) -> tuple[str, str]:
    """Scores first; a search where there are none, then what healing buys."""
    if found:
        return _found(bundle, found, pruned)
    if bundle.searches and not pruned:
        return search.headline_words(bundle.searches[0].document)
    if bundle.healings and not pruned:
        return healing_words.headline_words(bundle.healings[0].document)
    return _not_found(pruned)


def scored(bundle: Bundle) -> list[Scored]:
    """The pruned systems of the first scores."""
    if not bundle.scores:
        return []
    scores = bundle.scores[0].document
    return [Scored(system, scores.headline, scores.headline_of(system)) for system in bundle.pruned_systems]


def affordable(pruned: list[Scored]) -> Affordable | None:
    """The plan that removes most layers while what it loses stays within the tolerance.

    Plans whose whole interval lies within it come first, then those whose value does. Whole layers come before parts
    of layers. Ties: the smaller loss.
    """
    for certain in (True, False):
        if found := _largest_within(pruned, upper=certain):
            return Affordable(found.system, found.name, found.score, certain)
    return None


def _largest_within(pruned: list[Scored], *, upper: bool) -> Scored | None:
    within = [one for one in pruned if one.loss(upper=upper) <= TOLERANCE]
    return max(within, key=lambda one: (one.whole, len(one.system.removed), -one.loss(upper=False)), default=None)


def _found(bundle: Bundle, found: Affordable, pruned: list[Scored]) -> tuple[str, str]:
    system, depth = found.system, bundle.scores[0].document.model.depth
    name, after = found.name, value_text(found.score)
    can = "can go at" if found.certain else "may go, at"
    part = wording.PART_OF[system.plan.part] if system.plan else ""
    tried = wording.plural(len(pruned), "plan")
    return (
        f"{part[:1].upper()}{part[1:]}{len(system.removed)} of {depth} decoder layers {can} {found.change} "
        f"relative {name}",
        f"Of {tried} tried, {system.name} ({found.removes}) removes the most layers "
        f"while {name} stays within {_limit(found)} of the unpruned model: {_before(bundle)}{after}. "
        f"{_certainty(found, pruned)}",
    )


def _before(bundle: Bundle) -> str:
    scores = bundle.scores[0].document
    base = baseline(scores)
    score = scores.headline_of(base) if base else None
    return f"from {value_text(score)} to " if score else "to "


def _certainty(found: Affordable, pruned: list[Scored]) -> str:
    if not found.certain:
        return "Its interval reaches beyond that limit, so this is not certain."
    further = _largest_within(pruned, upper=False)
    if further is None or len(further.system.removed) <= len(found.system.removed):
        return "Its whole interval lies within that limit."
    return (
        f"Its whole interval lies within that limit; {further.system.name} removes "
        f"{len(further.system.removed)}, and only its value does."
    )


def _not_found(pruned: list[Scored]) -> tuple[str, str]:
    if not pruned:
        return "What pruning costs was not measured", "No scores of pruned models were given to this report."
    least = min(pruned, key=lambda one: one.loss(upper=False))
    if least.score is None:
        return "What pruning costs is not known", "The scores hold no measure of their task."
    if least.loss(upper=False) == float("inf"):
        return (
            "The relative cost of pruning is not known",
            "The unpruned model makes no error, or was not scored.",
        )
    return (
        f"No plan tested stays within {_limit(least)} relative {least.name}",
        f"The mildest of {wording.plural(len(pruned), 'plan')}, {least.system.name} ({least.removes}), already "
        f"costs {least.change}.",
    )


def _limit(scored: Scored) -> str:
    assert scored.score is not None
    return tolerance_words(scored.score)
