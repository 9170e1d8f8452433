"""The top of the page: what all documents together say, in a few sentences, and what they do not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoal import wording
from shoal.report import healing_words, limits, requirements, search, tiles
from shoal.report.affordable import Candidate, Result, candidates, deepest, limit_of, scored
from shoal.report.bundle import Bundle
from shoal.report.healing_cells import leading_plan
from shoal.report.parts import Tile
from shoal.report.units import TOLERANCE, tolerance_words
from shoal.schema import Plan


@dataclass(frozen=True)
class Headline:
    """View of the top of the page."""

    verdict: str
    explanation: str
    others: list[str]
    """What documents say that the explanation does not speak of."""
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
    known = candidates(bundle)
    best = deepest(known)
    verdict, *sentences = _found(bundle, best, known) if best else _not_found(bundle, known)
    removed, removed_words = _removed(bundle, best, known)
    return Headline(
        verdict=verdict + _unless_required(bundle),
        explanation=" ".join(sentences),
        others=list(_other_documents(bundle, best, known)),
        tiles=tiles.build(bundle, (best.first.name, len(best.first.removed)) if best else None),
        warning=limits.speech_warning(bundle),
        untested=limits.untested(bundle),
        cautions=limits.cautions(bundle),
        removed=removed,
        removed_words=removed_words,
        depth=best.first.depth if best else bundle.depth,
    )


def _unless_required(bundle: Bundle) -> str:
    """Nothing is said to be fine where a requirement that somebody made does not hold."""
    broken = any(not named.document.holds for named in bundle.validations)
    return ", but not every requirement holds" if broken else ""


def _removed(bundle: Bundle, best: Candidate | None, known: Sequence[Candidate]) -> tuple[list[int], str]:
    """The layers that the headline speaks of, and what of them goes in words."""
    if best:
        return [*best.first.absent], best.first.removes
    plan = None if known else _healed(bundle)
    return (plan.layers, wording.removed_names(plan)) if plan else ([], "")


def _healed(bundle: Bundle) -> Plan | None:
    group, _ = leading_plan(bundle.healings[0].document, TOLERANCE) if bundle.healings else (None, False)
    return group.plan if group else None


def _found(bundle: Bundle, best: Candidate, known: Sequence[Candidate]) -> list[str]:
    """The verdict, and what it rests on."""
    first = best.first
    part, size = wording.PART_OF[first.part], f"{len(first.removed)} of {first.baseline_depth}"
    healed = f" after healing ({first.healed})" if first.healed else ""
    can = f"can go{healed} at" if best.certain else f"may go{healed}, at"
    changes = wording.listing([f"{result.change} relative {result.score_name}" for result in best.results])
    results = "; ".join(_result_words(result) for result in best.results)
    return [
        f"{_first_upper(part)}{size} decoder layers {can} {changes}",
        f"Of {_count(known)} tried, {first.name} ({first.removes}) removes the most layers while "
        f"{first.score_name} stays within {_limit(bundle, first)} of {first.baseline}: {results}.",
        _certainty(best, known),
        *_unhealed(best, known),
        *([f"It {first.listens}."] if first.listens else []),
    ]


def _unhealed(best: Candidate, known: Sequence[Candidate]) -> Iterator[str]:
    """What the same layers cost before healing, and the deepest cut that holds without it."""
    first = best.first
    if not first.healed:
        return
    plain = [candidate for candidate in known if not candidate.first.healed]
    same = next((other.first for other in plain if other.first.absent == first.absent), None)
    if same is not None:
        deaf = ", and what is left cannot be told from a model that does not listen" if same.deaf else ""
        yield f"Without healing, the same layers cost {same.change}{deaf}."
    alone = deepest(plain)
    if alone is not None:
        yield f"Of plans without healing, {alone.first.name} is the deepest within the limit."
    else:
        yield "No plan stays within the limit without healing."


def _result_words(result: Result) -> str:
    return f"{result.values or result.change} ({result.source})"


def _certainty(best: Candidate, known: Sequence[Candidate]) -> str:
    tested = any(result.certain and "unseen" in result.values for result in best.results)
    doubts = [result.doubt for result in best.results if result.doubt]
    if doubts:
        return f"It was {doubts[0]}."
    if not best.proved:
        return "Its interval reaches beyond that limit, or no unseen clip was tested, so this is not certain."
    if not best.certain:
        return f"{wording.plural(min(result.clips for result in best.results), 'clip')} are too few to be certain."
    sure = "It held on unseen clips" if tested else "Its whole interval lies within that limit"
    deeper = deepest([candidate for candidate in known if len(candidate.first.removed) > len(best.first.removed)])
    if deeper is None:
        return f"{sure}."
    return f"{sure}; {deeper.first.name} removes {len(deeper.first.removed)}, but that is not certain."


def _not_found(bundle: Bundle, known: Sequence[Candidate]) -> list[str]:
    """No plan of which all documents say that it is affordable."""
    if not known:
        return _not_scored(bundle)
    disputed = next((candidate for candidate in known if candidate.disputed), None)
    if disputed is not None:
        results = "; ".join(f"{result.change} {result.score_name} ({result.source})" for result in disputed.results)
        return [f"The documents disagree about {disputed.first.name}", f"Without {disputed.first.removes}: {results}."]
    least = min(known, key=lambda candidate: candidate.loss)
    if not any(result.score_name for result in least.results):
        return ["What pruning costs is not known", "The scores hold no measure of their task."]
    if least.loss == float("inf"):
        return [
            "The relative cost of pruning is not known",
            f"{_first_upper(least.first.baseline)} makes no error, or was not scored.",
        ]
    return [
        f"No pruned model tested stays within {_limit(bundle, least.first)} relative {least.first.score_name}",
        f"The mildest of {_count(known)}, {least.first.name} ({least.first.removes}), already "
        f"costs {least.first.change}.",
    ]


def _not_scored(bundle: Bundle) -> list[str]:
    """A search that chose nothing, else what healing gains."""
    if bundle.searches:
        return [*search.headline_words(bundle.searches[0].document)]
    if bundle.healings:
        return [*healing_words.headline_words(bundle.healings[0].document)]
    return ["What pruning costs was not measured", "No scores of pruned models were given to this report."]


def _other_documents(bundle: Bundle, best: Candidate | None, known: Sequence[Candidate]) -> Iterator[str]:
    """A sentence for every search, scores and healing that the rest of the headline does not speak of."""
    for validation in bundle.validations:
        yield f"{validation.label or 'Validation'}: {requirements.verdict(validation.document)}"
    told = {result.source for result in best.results} if best else set()
    for searched in bundle.searches if known else ():
        if (searched.label or "the search") not in told:
            yield f"{searched.label or 'The search'}: {search.verdict(searched.document)}"
    for named in bundle.scores:
        own = [Candidate([result]) for result in scored(named, limit_of(bundle))]
        if best and own and own[0].first.source not in told:
            yield f"{own[0].first.source}: {_best_of(bundle, own)}"
    for healed in bundle.healings if known else ():
        group, _ = leading_plan(healed.document, TOLERANCE)
        if group is not None:
            yield f"{healed.label or 'Healing'}: {healing_words.effect_words(healed.document, group)}"


def _best_of(bundle: Bundle, own: Sequence[Candidate]) -> str:
    best = deepest(own)
    limit = f"{_limit(bundle, own[0].first)} {own[0].first.score_name}"
    if best is None:
        return f"none of {_count(own)} stays within {limit}."
    return f"of {_count(own)}, {best.first.name} removes the most within {limit}."


def _limit(bundle: Bundle, result: Result) -> str:
    return tolerance_words(higher_is_better=result.higher_is_better, limit=limit_of(bundle))


def _count(known: Sequence[Candidate]) -> str:
    return wording.plural(len(known), "pruned model")


def _first_upper(words: str) -> str:
    return words[:1].upper() + words[1:]
