"""Scores as tables and sentences. The terminal, cards and reports show the same cells, whichever way a score runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from shoal import wording
from shoal.data_names import DATA, DOMAIN, set_columns, set_name
from shoal.tables import NONE, Table

if TYPE_CHECKING:
    from shoal.schema import Cliff, Delta, Example, Failure, MeasuredScore, Scores, SystemScores

LIMIT = "Hit the token limit"
"""Heading of the count of outputs that were cut; they are usually loops."""
NO_EFFECT = 1.05
"""A design effect below this is 1 to the precision it is written with."""


def value_text(score: MeasuredScore | None) -> str:
    """The value with its interval, in per cent where 1 is a hundred; a dash where there is none."""
    if score is None:
        return NONE
    if score.fraction:
        return wording.percent_estimate(score.value)
    return wording.with_interval(score.value, wording.number_of(score.value))


def plain_value(score: MeasuredScore) -> str:
    """The value without its interval."""
    if score.fraction:
        return wording.percent(score.value.value)
    return wording.number_of(score.value)(score.value.value)


def change_text(score: MeasuredScore | None) -> str:
    """The absolute change from the baseline, see `delta_text`."""
    return NONE if score is None else delta_text(score, score.delta)


def delta_text(score: MeasuredScore, delta: Delta | None) -> str:
    """A difference of a score with its interval, in points but for losses; a dash where there is none."""
    if delta is None:
        return NONE
    absolute = delta.absolute
    if score.fraction:
        return wording.absolute_change(absolute)
    unit = " points" if score.higher_is_better else ""
    return wording.with_interval(absolute, wording.number_of(absolute, sign=True), unit)


def relative_text(score: MeasuredScore | None) -> str:
    """The relative change as it is written: minus for a fall, whichever way is better; a dash where there is none."""
    relative = score.delta.relative if score and score.delta else None
    return wording.relative_change(relative) if relative else NONE


def p_heading(scores: Scores) -> str:
    """The heading of p-values: after Holm's correction where several systems are compared with the first."""
    return "p after Holm" if scores.corrected else "p"


def p_text(scores: Scores, score: MeasuredScore | None) -> str:
    """The p-value under that heading."""
    delta = score.delta if score else None
    return wording.p_value(None if delta is None else delta.p_holm if scores.corrected else delta.p_value)


def p_note(scores: Scores, family: Iterable[Delta | None]) -> str:
    """Says so where no test of a family could reach significance, whatever it measured; else nothing."""
    possible = [delta.smallest_p for delta in family if delta is not None and delta.smallest_p is not None]
    smallest, level = min(1.0, len(possible) * min(possible, default=0.0)), 1 - scores.level
    if smallest <= level:
        return ""
    holm = " after Holm" if len(possible) > 1 else ""
    return (
        f"no p-value can reach {level:.2g} here: so few speakers (or clips) differ that the smallest possible one is "
        f"{smallest:.2g}{holm}"
    )


def differences(scores: Scores, name: str) -> list[Delta | None]:
    """Of all systems from the first by the score `name`: the family that Holm's correction is over."""
    return [system.measures[name].delta for system in scores.systems if name in system.measures]


def group_differences(scores: Scores, system: SystemScores, field: str) -> list[Delta | None]:
    """Of the groups of a field that are large enough to be judged: another family."""
    measured = [group_score(scores, system, field, value) for value in system.groups.get(field, ())]
    return [score.delta for score in measured if score and score.delta and score.delta.p_holm is not None]


def design_effect(scores: Scores) -> str:
    """How much wider intervals are because the clips of a speaker are alike; nothing where it is not known."""
    score = scores.headline_of(scores.systems[0])
    if score is None or score.design_effect is None:
        return ""
    effect = f"{score.design_effect:.1f}"
    if score.design_effect < NO_EFFECT:
        return f"clips of one speaker are no more alike than those of several (design effect {effect})"
    words = f"intervals are as wide as with 1/{effect} of the clips (design effect {effect})"
    return f"clips of one speaker are alike: {words}"


def removed_words(system: SystemScores) -> str:
    """The layers, or what of them, that a system lacks, in the numbering of the model before any pruning."""
    part, absent = system.plan.part if system.plan else "layer", system.absent_layers
    if part == "layer" or not system.missing:
        return wording.PART_OF[part] + wording.layer_names(absent)
    taken = wording.layer_names([layer for layer in absent if layer not in system.missing])
    return f"{wording.layer_names(system.missing)}, and {wording.PART_OF[part]}{taken}"


def lacking(systems: Sequence[SystemScores]) -> list[str]:
    """A line for each checkpoint that lacks layers without any plan."""
    pruned = [system for system in systems if system.missing and not system.removed]
    return [f"{system_name(system)} itself lacks {removed_words(system)}" for system in pruned]


def system_name(system: SystemScores) -> str:
    """With the checkpoint, where it is another one than the document's model."""
    ref = system.model_ref
    return f"{system.name} ({ref})" if ref and PurePath(ref).name != system.name else system.name


def score_names(scores: Scores) -> list[str]:
    """Everything that some system is scored by, the headline first."""
    return list(dict.fromkeys(name for system in scores.systems for name in system.measures))


def overview(scores: Scores) -> Table:
    """A row for each system: the headline with its change, then the other scores."""
    first, *others = score_names(scores) or ["score"]
    columns: dict[str, Callable[[SystemScores], str]] = {
        "system": system_name,
        "removed": lambda system: str(len(system.absent_layers)),
        first: _score_cell(first),
        "relative": lambda system: relative_text(system.measures.get(first)),
        p_heading(scores): lambda system: p_text(scores, system.measures.get(first)),
        **{name: _score_cell(name) for name in others},
        "ins/del/sub": lambda system: _edits(system.measures.get(first)),
        LIMIT.lower(): lambda system: str(system.truncated),
    }
    return Table.of(scores.headline, columns, scores.systems)


def _score_cell(name: str) -> Callable[[SystemScores], str]:
    return lambda system: value_text(system.measures.get(name))


def _edits(score: MeasuredScore | None) -> str:
    edits = score.edits if score else None
    return f"{edits.insertions}/{edits.deletions}/{edits.substitutions}" if edits else NONE


def score_table(scores: Scores, name: str) -> Table:
    """A row for each system that has the score `name`: what was removed, the score and its changes."""
    systems = [system for system in scores.systems if name in system.measures]
    better = "higher" if systems[0].measures[name].higher_is_better else "lower"
    columns: dict[str, Callable[[SystemScores], str]] = {
        "System": system_name,
        "n": lambda system: str(len(system.absent_layers)),
        "Layers removed": lambda system: wording.without_noun(removed_words(system)) if system.absent_layers else NONE,
        name: lambda system: value_text(system.measures[name]),
        "Change, absolute": lambda system: change_text(system.measures[name]),
        "Change, relative": lambda system: relative_text(system.measures[name]),
        p_heading(scores): lambda system: p_text(scores, system.measures[name]),
        LIMIT: lambda system: f"{system.truncated:,}",
    }
    caption = f"{name}; {better} is better. Changes are against the first row, on the same clips"
    if note := p_note(scores, differences(scores, name)):
        caption += f"; {note}"
    return Table.of(caption, columns, systems, ["Layers removed"], highlight=[0])


def data_set_table(scores: Scores) -> Table | None:
    """Systems by data sets, those out of domain last, and what is pooled; None if there is one set only."""
    columns = set_columns(scores)
    if not columns:
        return None
    headings, rows = ["System"], [[system_name(system)] for system in scores.systems]
    for field, value in columns:
        clips = scores.systems[0].groups[field][value].clips
        headings += [f"{set_name(scores, field, value)} ({wording.plural(clips, 'clip')})", "Change, relative"]
        for row, system in zip(rows, scores.systems, strict=True):
            score = group_score(scores, system, field, value)
            row += [value_text(score), relative_text(score)]
    return Table(headings, rows, f"{scores.headline or 'score'} by data set", highlight=frozenset({0}))


LARGE_SHARE, TIMES_AVERAGE = 0.1, 6
"""A clip with more of the errors than this, and than so many average clips have, is named."""


def loop_words(scores: Scores, system: SystemScores, named: Callable[[str], str] = str) -> str:
    """What loops do to the headline, and what those that no clip has shown may do; empty where neither matters.

    Args:
        scores: with the system.
        system: whose loops.
        named: writes names of clips and systems.
    """
    clips, loops = scores.data.clips, system.loops or 0
    parts = []
    if loops:
        names = wording.first_of([*map(named, system.loop_clips)], loops)
        parts.append(f"{wording.plural(loops, 'loop')} among {clips:,} clips ({names})")
    share = system.largest_share or 0
    if system.largest_clip and share > max(LARGE_SHARE, TIMES_AVERAGE / clips):
        parts.append(f"{wording.percent(share, 0)} of the errors are in {named(system.largest_clip)}")
    score = scores.headline_of(system)
    if score and score.bound_with_unseen is not None and (loops or _far(score, score.bound_with_unseen)):
        # The rule of three: with 95 % confidence, what none of n clips does, fewer than 3 / n of all do.
        unseen = wording.percent(min(1, -math.log(1 - scores.level) / clips), 1)
        may = "others may loop too" if loops else f"no loop among {clips:,} clips, but up to {unseen} of others may"
        parts.append(f"{may}: {_bound_words(scores, score, named)}")
    return "; ".join(parts)


def loop_lines(scores: Scores) -> list[str]:
    """`loop_words` of every system; those that share all but their bound share a line."""
    lines = {system.name: words for system in scores.systems if (words := loop_words(scores, system))}
    quiet = {
        system.name: score
        for system in scores.systems
        if lines.get(system.name, "").startswith("no loop") and (score := scores.headline_of(system))
    }
    if len(quiet) < 2:
        return [f"{name}: {words}" for name, words in lines.items()]
    seen = lines[next(iter(quiet))].split(": ")[0]
    side = "above" if next(iter(quiet.values())).higher_is_better else "below"
    bounds = ", ".join(f"{_bound(score)} ({name})" for name, score in quiet.items())
    sure = f"{scores.headline} is {side} these with {wording.level_name(scores.level)} confidence: {bounds}"
    return [f"{seen}: {sure}", *(f"{name}: {words}" for name, words in lines.items() if name not in quiet)]


def _bound(score: MeasuredScore) -> str:
    bound = score.bound_with_unseen
    assert bound is not None
    return wording.percent(bound, 0 if bound > 0.1 else 1) if score.fraction else wording.fixed(bound, 1)


def _far(score: MeasuredScore, bound: float) -> bool:
    """Whether it lies over twice as far from the value as the interval reaches: usual below about 1,000 clips."""
    end = score.value.low if score.higher_is_better else score.value.high
    return end is None or abs(bound - score.value.value) > 2 * abs(end - score.value.value)


def _bound_words(scores: Scores, score: MeasuredScore, named: Callable[[str], str]) -> str:
    change = score.delta.relative_bound_with_unseen if score.delta else None
    relative = "" if change is None else wording.signed(wording.percent(score.sign * change, 0))
    against = f" ({relative} against {named(scores.systems[0].name)})" if relative else ""
    side, sure = "above" if score.higher_is_better else "below", wording.level_name(scores.level)
    return f"{scores.headline} is {side} {_bound(score)}{against} with {sure} confidence"


FAILURES: dict[Failure, str] = {
    "loop": "loops",
    "empty": "says nothing",
    "other script": "another script",
    "early end": "ends early",
    "invented": "invents words",
    "unrelated": "unrelated words",
}


def failure_name(example: Example, system: str) -> str:
    """In what way a system's answer to a clip is wrong; empty where that has no name."""
    kind = example.failures.get(system)
    return FAILURES[kind] if kind else ""


def failure_table(scores: Scores) -> Table | None:
    """In what way the answers of each system are wrong; None where that was not told, or there is nothing to tell."""
    systems = [system for system in scores.systems if system.failures is not None]
    kinds = [kind for kind in FAILURES if any(kind in (system.failures or ()) for system in systems)]
    if not kinds:
        return None
    columns: dict[str, Callable[[SystemScores], str]] = {"system": system_name}
    columns |= {FAILURES[kind]: partial(_failure_cell, kind) for kind in kinds}
    clips = wording.plural(scores.data.clips, "clip")
    return Table.of(f"Why it broke: share of {clips}, one kind a clip; the rest has single errors", columns, systems)


def _failure_cell(kind: Failure, system: SystemScores) -> str:
    found = (system.failures or {}).get(kind)
    return "0" if found is None else wording.percent_estimate(found.share)


def cliff_lines(scores: Scores) -> list[str]:
    """The distance to the cliff, for each strategy, as sentences without their full stop."""
    return [_cliff_words(scores, cliff) for cliff in scores.cliffs]


def _cliff_words(scores: Scores, cliff: Cliff) -> str:
    plans, level = f"{cliff.strategy} plans", wording.level_name(scores.level)
    if cliff.breaks is None:
        low = "" if cliff.low is None else f" ({level} interval: from {cliff.low} on)"
        return f"{plans}: {scores.headline} does not double with up to {cliff.holds} layers gone{low}"
    high = "none of them" if cliff.high is None else f"{cliff.high}"
    between = "" if cliff.low is None else f" ({level} interval, of the sizes measured: {cliff.low} to {high})"
    kept = f"; with {cliff.holds} gone it does not" if cliff.holds else ""
    return f"{plans}: {scores.headline} more than doubles with {cliff.breaks} layers gone{between}{kept}"


MOST_GROUPS = 20
"""Rows of a table of groups; the others are in the file."""


def group_table(scores: Scores, field: str) -> Table:
    """The groups of a field by systems, that first which fares worst under any of them."""

    def worst(value: str) -> float:
        measured = [group_score(scores, system, field, value) for system in scores.systems]
        return max((score.sign * score.value.value for score in measured if score), default=-math.inf)

    groups = scores.systems[0].groups[field]
    values = sorted(groups, key=worst, reverse=True)
    rows = []
    for value in values[:MOST_GROUPS]:
        cells = [value_text(group_score(scores, system, field, value)) for system in scores.systems]
        rows.append([value, str(groups[value].clips), *cells])
    left = len(values) - len(rows)
    caption = f"{scores.headline or 'score'} by {field}, worst first" + (f"; {left} more in the file" if left else "")
    return Table([field, "clips", *map(system_name, scores.systems)], rows, caption)


def group_score(scores: Scores, system: SystemScores, field: str, value: str | None) -> MeasuredScore | None:
    """The headline score of one group of a system."""
    group = None if value is None else system.groups.get(field, {}).get(value)
    return None if group is None else scores.headline_of(group)


@dataclass(frozen=True)
class NotableGroup:
    """The group of a field that fares worst, or the one that lost most, under one system."""

    title: str
    """Such as `worst speaker`."""
    system: SystemScores
    group: str
    score: str
    """What is said of its score."""


def notable_groups(scores: Scores, systems: Sequence[SystemScores]) -> Iterator[NotableGroup]:
    """For every field and system the group that fares worst, then those that lost most beside what all clips lost."""
    for system in systems:
        for field, value in system.worst_group.items():
            score = group_score(scores, system, field, value)
            if field not in (DATA, DOMAIN) and score:
                clips = wording.plural(system.groups[field][value].clips, "clip")
                yield NotableGroup(f"worst {field}", system, value, f"{scores.headline} {value_text(score)}, {clips}")
    for system in systems:
        for field, value in system.most_worsened.items():
            score, overall = group_score(scores, system, field, value), scores.headline_of(system)
            if score and score.delta:
                title = f"most worsened {'data set' if field == DATA else field}"
                yield NotableGroup(title, system, value, _worsened(scores.headline, score, score.delta, overall))


def _worsened(name: str, score: MeasuredScore, delta: Delta, overall: MeasuredScore | None) -> str:
    chance = "" if delta.p_holm is None else f" (p {wording.p_value(delta.p_holm)} after Holm over the groups)"
    return f"{name} {change_text(score)}{chance}; all clips {change_text(overall)}"
