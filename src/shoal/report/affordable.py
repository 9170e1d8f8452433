"""What scores and searches say of each pruned model, and the deepest cut that none of them speaks against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoal import wording
from shoal.control_tables import control_sentence, listens
from shoal.plan_search.words import how_sure
from shoal.report.bundle import UNPRUNED, Bundle, Named, baseline, baseline_words
from shoal.report.units import TOLERANCE, score_text
from shoal.schema import Confirmation, Estimate, Scores, Search, SystemScores
from shoal.score_tables import relative_text, removed_words, value_text
from shoal.terms import Part


@dataclass(frozen=True)
class Result:
    """What one document says of one pruned model."""

    source: str
    """The document, as a sentence names it."""
    name: str
    model: str
    """Fingerprint of the model before pruning, or its name."""
    baseline: str
    """What it is compared with, in words."""
    depth: int
    """Layers of the model before any pruning; all layers are numbered as there."""
    part: Part
    absent: tuple[int, ...]
    """Layers that it goes without."""
    removed: tuple[int, ...]
    """Those of them that the baseline has."""
    removes: str
    """The layers, or what of them, in words."""
    score_name: str
    higher_is_better: bool
    worsening: Estimate | None
    """Relative loss; None where it is not known."""
    change: str
    """The same as it is written."""
    values: str
    """Such as `from 12.1 % to 13.2 %`; empty where the document does not pair them."""
    within: bool
    """Whether the loss is within the limit."""
    proved: bool
    """Whether its whole interval is, or a test on unseen clips says so."""
    clips: int
    confirmed: bool | None = None
    """Whether the search that speaks has confirmed it; None where scores do."""
    doubt: str = ""
    """How sure a search is that chose it without confirming it."""
    healed: str = ""
    """The target that it was healed by, if it was."""
    listens: str = ""
    """What controls say of it, if they were run."""
    deaf: bool = False
    """Whether they cannot tell it from a model that does not listen."""

    @property
    def baseline_depth(self) -> int:
        """Layers of the model that it is compared with."""
        return self.depth - len(self.absent) + len(self.removed)

    @property
    def few(self) -> bool:
        """Whether so few clips prove nothing."""
        return self.clips < wording.FEW_CLIPS if self.confirmed is None else not self.confirmed

    @property
    def certain(self) -> bool:
        """Whether it is proved, on enough clips."""
        return self.proved and not self.few

    @property
    def loss(self) -> float:
        """Relative loss; infinite where it is not known."""
        return float("inf") if self.worsening is None else self.worsening.value


@dataclass(frozen=True)
class Candidate:
    """One pruned model with every result that is known of it."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """That of the first document."""
        return self.results[0]

    @property
    def loss(self) -> float:
        """The largest."""
        return max(result.loss for result in self.results)

    @property
    def within(self) -> bool:
        """Whether no document speaks against it."""
        return all(result.within for result in self.results)

    @property
    def proved(self) -> bool:
        """Whether every document's interval, or its test, says so."""
        return all(result.proved for result in self.results)

    @property
    def certain(self) -> bool:
        """Whether every document is sure."""
        return all(result.certain for result in self.results)

    @property
    def disputed(self) -> bool:
        """Whether one document allows it and another does not."""
        return not self.within and any(result.within for result in self.results)


def limit_of(bundle: Bundle) -> float:
    """The relative loss that counts as affordable: what a search was told, else the usual one."""
    limits = [named.document.budget.max_increase for named in bundle.searches]
    return next((limit for limit in limits if limit is not None), TOLERANCE)


def candidates(bundle: Bundle) -> list[Candidate]:
    """The pruned models of all scores and searches; the same plan of several documents is one."""
    limit = limit_of(bundle)
    results = [result for named in bundle.searches for result in searched(named)]
    results += [result for named in bundle.scores for result in scored(named, limit)]
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        groups.setdefault((result.model, result.baseline, result.part, result.absent), []).append(result)
    return [Candidate(group) for group in groups.values()]


def deepest(known: Sequence[Candidate]) -> Candidate | None:
    """The plan that removes most while no document speaks against it.

    Plans of which all documents are sure come first, then those that only too few clips leave open. Whole layers come
    before parts of layers. Ties: the plan that more documents measured, then the smaller loss.
    """
    within = [candidate for candidate in known if candidate.within]

    def rank(candidate: Candidate) -> tuple[float, ...]:
        first, sure = candidate.first, candidate.certain + candidate.proved
        return sure, first.part == "layer", len(first.removed), len(candidate.results), -candidate.loss

    return max(within, key=rank, default=None)


def scored(named: Named[Scores], limit: float) -> Iterator[Result]:
    """The systems of a scores document that lack more layers than the first, by a plan or as checkpoints."""
    base = baseline(named.document)
    for system in named.document.systems[1:]:
        removed = sorted(set(system.absent_layers).difference(base.absent_layers if base else ()))
        if removed:
            yield _scored(named, system, removed, limit)


def _scored(named: Named[Scores], system: SystemScores, removed: Sequence[int], limit: float) -> Result:
    scores, score = named.document, named.document.headline_of(system)
    base = baseline(scores)
    before = scores.headline_of(base) if base else None
    worsening = score.worsening if score else None
    return Result(
        source=named.label or f"the scores of {scores.task}",
        name=system.name,
        model=system.fingerprint or scores.model.fingerprint or scores.model.ref,
        healed=system.healed,
        listens=control_sentence(scores, system),
        deaf=listens(scores, system) == "cannot be told",
        baseline=baseline_words(scores),
        depth=scores.full_depth,
        part=system.plan.part if system.plan else "layer",
        absent=tuple(system.absent_layers),
        removed=tuple(removed),
        removes=removed_words(system),
        score_name=scores.headline,
        higher_is_better=bool(score and score.higher_is_better),
        worsening=worsening,
        change=relative_text(score),
        values=f"{f'from {value_text(before)} ' if before else ''}to {value_text(score)}",
        within=worsening is not None and worsening.value <= limit,
        proved=worsening is not None and worsening.high is not None and worsening.high <= limit,
        clips=scores.data.clips,
    )


def searched(named: Named[Search]) -> Iterator[Result]:
    """The plans that a search tested on unseen clips, and its choice where that was not tested."""
    search = named.document
    for test in search.confirmations:
        yield _searched(named, test, search.full_confirmation)
    chosen = search.chosen
    tested = [(test.plan.part, test.plan.layers) for test in search.confirmations]
    if chosen is not None and chosen.layers and (chosen.part, chosen.layers) not in tested:
        step = next((s for s in search.steps if (s.plan.part, s.plan.layers) == (chosen.part, chosen.layers)), None)
        if step is not None:
            yield _searched(named, Confirmation(plan=chosen, score=step.score, change=step.change, holds=False), None)


def _searched(named: Named[Search], test: Confirmation, before: Estimate | None) -> Result:
    """Without `before` the plan was tried on the clips it was chosen on, and nothing is certain."""
    search = named.document
    chosen = search.chosen is not None and (search.chosen.part, search.chosen.layers) == (
        test.plan.part,
        test.plan.layers,
    )
    clips, absent = search.confirmation_clips, search.absent_layers(test.plan)
    removed = [layer for layer in absent if layer not in search.missing]
    return Result(
        source=named.label or "the search",
        name=test.plan.name,
        model=search.model.fingerprint or search.model.ref,
        baseline=search.name if search.missing else UNPRUNED,
        depth=search.model.depth + len(search.missing),
        part=test.plan.part,
        absent=tuple(absent),
        removed=tuple(removed),
        removes=wording.PART_OF[test.plan.part] + wording.layer_names(removed),
        score_name=search.score_name,
        higher_is_better=search.higher_is_better,
        worsening=test.change,
        change=wording.relative_change(test.change.negated() if search.higher_is_better else test.change),
        values=f"from {_text(search, before)} to {_text(search, test.score)} on {wording.plural(clips, 'unseen clip')}"
        if before
        else "",
        within=chosen or test.holds,
        proved=test.holds and not search.budget.point and before is not None,
        confirmed=test.confirmed,
        doubt=how_sure(search) if chosen and before is not None and not test.confirmed else "",
        clips=clips,
    )


def _text(search: Search, score: Estimate) -> str:
    return score_text(search.score_name, score, fraction=search.fraction)
