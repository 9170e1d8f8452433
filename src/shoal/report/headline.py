"""The top of the page: what the data say, in a few sentences, and what they do not say."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.report import limits, tiles, wording
from shoal.report.bundle import Bundle, baseline
from shoal.report.parts import Tile
from shoal.schema import SystemScores

TOLERANCE = 0.25
"""Relative WER increase that counts as affordable: the stop rule of arXiv 2603.05121."""


@dataclass(frozen=True)
class Affordable:
    """The deepest cut within the tolerance, and whether its whole interval is within it."""

    system: SystemScores
    certain: bool


@dataclass(frozen=True)
class Headline:
    """View of the top of the page."""

    verdict: str
    explanation: str
    tiles: list[Tile]
    untested: list[str]
    cautions: list[str]
    removed: list[int]
    depth: int | None


def build(bundle: Bundle) -> Headline:
    """The headline of a bundle."""
    found = affordable(bundle.pruned_systems)
    verdict, explanation = _found(bundle, found) if found else _not_found(bundle.pruned_systems)
    return Headline(
        verdict=verdict,
        explanation=explanation,
        tiles=tiles.build(bundle, found.system if found else None),
        untested=limits.untested(bundle),
        cautions=limits.cautions(bundle),
        removed=found.system.removed if found else [],
        depth=bundle.depth,
    )


def affordable(systems: list[SystemScores]) -> Affordable | None:
    """The plan that removes most layers while its relative WER increase stays within the tolerance.

    Plans whose whole interval lies within it come first, then those whose value does. Ties: lower WER.
    """
    for certain in (True, False):
        if system := _largest_within(systems, upper=certain):
            return Affordable(system, certain)
    return None


def _largest_within(systems: list[SystemScores], *, upper: bool) -> SystemScores | None:
    within = [system for system in systems if relative_increase(system, upper=upper) <= TOLERANCE]
    return max(within, key=lambda system: (len(system.removed), -system.wer.value), default=None)


def relative_increase(system: SystemScores, *, upper: bool) -> float:
    """Relative WER increase, or the upper end of its interval; infinite where it is not known."""
    estimate = system.delta_wer.relative if system.delta_wer else None
    if estimate is None:
        return float("inf")
    bound = estimate.high if upper else estimate.value
    return float("inf") if bound is None else bound


def _found(bundle: Bundle, found: Affordable) -> tuple[str, str]:
    system, depth = found.system, bundle.scores[0].document.model.depth
    base = baseline(bundle.scores[0].document)
    change = wording.relative_change(system.delta_wer.relative if system.delta_wer else None)
    can = "can go at" if found.certain else "may go, at"
    before = f"from {wording.percent_estimate(base.wer)} to" if base else "to"
    tried = wording.plural(len(bundle.pruned_systems), "plan")
    return (
        f"{len(system.removed)} of {depth} decoder layers {can} {change} relative WER",
        f"Of {tried} tried, {system.name} ({wording.layer_names(system.removed)}) removes the most layers "
        f"while WER stays within {_limit()} of the unpruned model: {before} "
        f"{wording.percent_estimate(system.wer)}. {_certainty(bundle, found)}",
    )


def _certainty(bundle: Bundle, found: Affordable) -> str:
    if not found.certain:
        return "Its interval reaches beyond that limit, so this is not certain."
    further = _largest_within(bundle.pruned_systems, upper=False)
    if further is None or len(further.removed) <= len(found.system.removed):
        return "Its whole interval lies within that limit."
    return (
        f"Its whole interval lies within that limit; {further.name} removes {len(further.removed)}, "
        "and only its value does."
    )


def _not_found(pruned: list[SystemScores]) -> tuple[str, str]:
    if not pruned:
        return "What pruning costs was not measured", "No scores of pruned models were given to this report."
    least = min(pruned, key=lambda system: relative_increase(system, upper=False))
    if relative_increase(least, upper=False) == float("inf"):
        return (
            "The relative cost of pruning is not known",
            "The unpruned model makes no error, or was not scored.",
        )
    cost = wording.relative_change(least.delta_wer.relative if least.delta_wer else None)
    return (
        f"No plan tested stays within {_limit()} relative WER",
        f"The mildest of {wording.plural(len(pruned), 'plan')}, {least.name} "
        f"({wording.layer_names(least.removed)}), already costs {cost}.",
    )


def _limit() -> str:
    return f"+{wording.percent(TOLERANCE, 0)}"
