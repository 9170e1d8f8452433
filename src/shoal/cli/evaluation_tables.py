"""What `shoal evaluate` prints: systems down, what the task is scored by across, then groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shoal import wording
from shoal.control_tables import control_sentences, control_table
from shoal.evaluation.empty_references import empty_words
from shoal.score_tables import (
    cliff_lines,
    data_set_table,
    design_effect,
    differences,
    failure_table,
    group_table,
    lacking,
    loop_lines,
    notable_groups,
    overview,
    p_note,
    system_name,
)
from shoal.tables import Table, plain

if TYPE_CHECKING:
    from shoal.schema import Scores


def summary(scores: Scores, fields: Sequence[str] = ()) -> list[str | Table]:
    """Everything that `shoal evaluate` prints, with a table of the groups of each of the fields."""
    return list(_lines(scores, fields))


def _lines(scores: Scores, fields: Sequence[str]) -> Iterator[str | Table]:
    data = scores.data
    yield f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}"
    yield overview(scores)
    if note := p_note(scores, differences(scores, scores.headline)):
        yield note
    yield from lacking(scores.systems)
    for system in scores.systems:
        if system.disagreements:
            yield f"{system.name}: jiwer and kaldialign count the errors of {system.disagreements} clips differently"
    if empty := scores.systems[0].empty_reference_clips:
        said = [f"{wording.plural(one.words_without_reference, 'word')} by {one.name}" for one in scores.systems]
        apart = empty_words(scores.systems[0].empty_references, data.clips, empty)
        yield plain(f"{apart}; said there: {', '.join(said)}")
    yield from map(plain, loop_lines(scores))
    if failures := failure_table(scores):
        yield f"{failures.caption}:"
        yield failures
    yield from map(plain, cliff_lines(scores))
    if controls := control_table(scores):
        yield f"{controls.caption}:"
        yield controls
        yield from map(plain, control_sentences(scores))
    if sets := data_set_table(scores):
        yield f"{sets.caption}:"
        yield sets
    for field in fields:
        groups = group_table(scores, field)
        yield f"{groups.caption}:"
        yield groups
    for notable in notable_groups(scores, scores.systems):
        yield plain(f"{notable.title} of {system_name(notable.system)}: {notable.group}, {notable.score}")
    over = wording.drawn_over(scores.drawn, scores.cluster)
    yield f"in brackets: {scores.level:.0%} intervals, from resampling {over}"
    if effect := design_effect(scores):
        yield effect
    yield f"normaliser {scores.normaliser}, scorer {scores.scorer}"


def advice(scores: Scores) -> list[str]:
    """How far to trust it, and what to do next."""
    few = wording.few_clips(scores.data.clips)
    pruned = [system for system in scores.systems[1:] if system.absent_layers]
    costs = [score.worsening for system in pruned if (score := scores.headline_of(system))]
    worse = [cost for cost in costs if cost and cost.low is not None and cost.low > 0]
    if not pruned:
        following = "name plans with --plan, or another checkpoint with --against, to compare on the same clips"
        following = following if len(scores.systems) == 1 else "shoal report, to see the scores beside what they save"
    elif len(worse) == len(pruned):
        following = "every plan costs quality: remove fewer layers, or shoal prune and shoal heal"
    else:
        following = "shoal bench with the same plans, to see what they save; then shoal prune"
    return [*([f"caution: {few}"] if few else []), f"next: {following}"]
