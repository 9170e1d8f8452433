"""The figures of the headline, each with its interval."""

from __future__ import annotations

from shoal import wording
from shoal.report.bundle import UNPRUNED, Bundle, baseline, baseline_words, removable
from shoal.report.healing_cells import leading_plan
from shoal.report.parts import Tile
from shoal.report.units import TOLERANCE
from shoal.schema import Audit, BestBlock, Estimate, InputKind, MetricValues, ScopeAudit, SystemBench
from shoal.terms import SUMMARY_SIZES


def build(bundle: Bundle, chosen: tuple[str, int] | None) -> list[Tile]:
    """What can be told of the score, redundancy, agreement, healing, time and memory.

    Args:
        bundle: the documents.
        chosen: name of the system that the headline names, and layers that it lacks; the tiles speak of its cost.
    """
    tiles = [
        _score_tile(bundle),
        _redundancy_tile(bundle, chosen[1] if chosen else None),
        _agreement_tile(bundle),
        _healing_tile(bundle),
        *_cost_tiles(bundle, chosen),
    ]
    return [tile for tile in tiles if tile]


def _score_tile(bundle: Bundle) -> Tile | None:
    scores = bundle.scores[0].document if bundle.scores else None
    base = baseline(scores) if scores else None
    score = scores.headline_of(base) if scores and base else None
    if scores is None or score is None:
        return None
    data = scores.data
    clips = f"{wording.plural(data.clips, 'clip')}, {wording.duration(data.seconds)}"
    number = wording.percent_number(score.value) if score.fraction else wording.number_of(score.value)
    unit = "%" if score.fraction else ""
    return _estimate_tile(score.value, unit, number, f"{scores.headline} of {baseline_words(scores)}", f"on {clips}")


def _redundancy_tile(bundle: Bundle, n: int | None) -> Tile | None:
    if not bundle.audits:
        return None
    audit = bundle.audits[0].document
    size = n or max(size for size in SUMMARY_SIZES if size <= max(1, audit.depth / 4))
    kind, scope = main_view(audit, bundle.preferred_scope)
    values = next(iter(scope.of_blocks().values()), None) if scope else None
    best = next((block for block in removable(values) if block.n == size), None) if values else None
    if values is None or best is None:
        return None
    block = "layer" if size == 1 else f"{size} layers"
    detail = f"most alike going in and coming out, for the {kind} input; " + _distance_words(values, best)
    name = str(best.layer) if size == 1 else f"{best.layer}–{best.layer + size - 1}"
    return Tile(value=name, label=f"the most redundant {block}", detail=detail)


def _distance_words(values: MetricValues, best: BestBlock) -> str:
    words = f"{values.title} {wording.number_estimate(best.distance)}"
    if not best.confidence_set:
        return words
    if not best.rivals:
        return f"{words}; told from all others"
    return f"{words}; cannot be told from those beginning at {wording.may_also_begin(best.rivals)}"


def main_view(audit: Audit, scope: str) -> tuple[InputKind, ScopeAudit | None]:
    """The input and scope a summary speaks of: speech if measured, and `scope` if measured."""
    kind: InputKind = "speech" if "speech" in audit.inputs else "text"
    scopes = audit.inputs[kind].scopes if kind in audit.inputs else {}
    return kind, next((s for name, s in scopes.items() if name == scope), next(iter(scopes.values()), None))


def _agreement_tile(bundle: Bundle) -> Tile | None:
    if not bundle.comparisons:
        return None
    comparison = bundle.comparisons[0].document
    scopes = comparison.scopes
    name = bundle.preferred_scope if bundle.preferred_scope in scopes else next(iter(scopes), None)
    if name is None:
        return None
    compared = next((values for values in scopes[name].metrics.values() if values.overlaps), None)
    if compared is None:
        return None
    within = compared.spearman_within_n or compared.spearman
    detail = (
        f"between {comparison.a.label} and {comparison.b.label}, among blocks of one size, scope “{name}” (1 = the "
        f"same order, 0 = unrelated); over all blocks, which flatters, {wording.fixed(compared.spearman.value, 2)}"
    )
    return Tile(wording.fixed(within.value, 2), "rank correlation of redundancy", detail)


def _healing_tile(bundle: Bundle) -> Tile | None:
    """What the best target won back, of the plan that the words on healing name."""
    healing = bundle.healings[0].document if bundle.healings else None
    group, _ = leading_plan(healing, TOLERANCE) if healing else (None, False)
    best = group.best if group else None
    if group is None or best is None or best.recovered is None:
        return None
    detail = f"{best.target} healing of {group.plan.name}, the best target, in {wording.duration(best.seconds)}"
    number = wording.percent_number(best.recovered)
    return _estimate_tile(best.recovered, "%", number, "of what pruning cost, won back", detail)


def _cost_tiles(bundle: Bundle, chosen: tuple[str, int] | None) -> list[Tile | None]:
    pruned = [s for s in bundle.benches[0].document.systems if s.removed] if bundle.benches else []
    if not pruned:
        return []
    # The system that the headline names, else the one that lacks about as many layers, else the deepest.
    size = chosen[1] if chosen else max(len(system.removed) for system in pruned)
    system = min(pruned, key=lambda s: (chosen is None or s.name != chosen[0], abs(len(s.removed) - size)))
    first = bundle.benches[0].document.systems[0]
    return [_time_tile(system, first.name if first.missing else UNPRUNED), _memory_tile(system)]


def _time_tile(system: SystemBench, against: str) -> Tile | None:
    if system.total_ratio is None:
        return None
    detail = f"{system.name} against {against}, encoder to last token"
    return _estimate_tile(
        system.total_ratio, "×", lambda v: wording.fixed(v, 2), "time for a clip", detail, joined=True
    )


def _memory_tile(system: SystemBench) -> Tile | None:
    if system.parameter_ratio is None:
        return None
    peak = system.peak_memory_ratio
    memory = f"; peak memory {wording.ratio(peak)}" if peak is not None else "; peak memory not measured"
    detail = f"{system.name}: {wording.count(system.parameters)} parameters (an exact count){memory}"
    return Tile(value=wording.ratio(system.parameter_ratio), label="parameters", detail=detail)


def _estimate_tile(
    estimate: Estimate, unit: str, number: wording.Number, label: str, detail: str, *, joined: bool = False
) -> Tile:
    space = wording.SPACE if unit and not joined else ""
    interval = wording.interval(estimate, number) or "no interval"
    return Tile(f"{number(estimate.value)}{space}{unit}", label, detail, interval)
