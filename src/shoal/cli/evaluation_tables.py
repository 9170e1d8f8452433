"""Scores as text for a terminal: systems down, what the task is scored by across, then groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shoal import wording
from shoal.cli.table import aligned
from shoal.data_names import DATA, DOMAIN, set_columns, set_name
from shoal.schema import Delta, Estimate, GroupScore, MeasuredScore, Scores, SystemScores


def summary(scores: Scores, out: Path) -> str:
    """Everything that `shoal evaluate` prints."""
    data = scores.data
    return "\n".join(
        [
            f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}",
            aligned(_headings(scores), [_cells(scores, system) for system in scores.systems]),
            *_compounds(scores),
            *_disagreements(scores),
            *sets(scores),
            *worst_groups(scores),
            *most_worsened(scores),
            f"normaliser {scores.normaliser}, scorer {_scorer(scores)}",
            str(out / "scores.json"),
        ]
    )


def _headings(scores: Scores) -> list[str]:
    p = "p (Holm)" if corrected(scores) else "p"
    measures = scores.systems[0].measures
    if not measures:
        return ["system", "removed", "WER %", "relative %", p, "CER %", "ins/del/sub", "cut off"]
    first, *others = (f"{name} %" if score.fraction else name for name, score in measures.items())
    return ["system", "removed", first, "relative %", p, *others, "cut off"]


def corrected(scores: Scores) -> bool:
    """Whether p-values are shown after Holm's correction: where several systems are compared with the baseline."""
    deltas = [_headline(system)[1] for system in scores.systems]
    return sum(delta is not None and delta.p_holm is not None for delta in deltas) > 1


def _headline(system: SystemScores) -> tuple[Estimate, Delta | None, bool]:
    """Value, difference and whether 1 is a hundred per cent."""
    for score in system.measures.values():
        return score.value, score.delta, score.fraction
    return system.wer, system.delta_wer, True


def _cells(scores: Scores, system: SystemScores) -> list[str]:
    value, delta, fraction = _headline(system)
    cells = [_points(value, fraction), *_change(delta, holm=corrected(scores))]
    return [system.name, str(len(system.removed)), *cells, *_others(system), str(system.truncated)]


def _others(system: SystemScores) -> list[str]:
    if system.measures:
        return [_points(score.value, score.fraction) for score in list(system.measures.values())[1:]]
    counts = system.word_counts
    return [_points(system.cer), f"{counts.insertions}/{counts.deletions}/{counts.substitutions}"]


def _points(value: Estimate, fraction: bool = True, form: str = ".1f") -> str:
    if not fraction and form == ".1f" and not 10 <= value.value < 1000:
        form = ".3g"  # losses are small, perplexities of whole words huge
    return wording.plain(value, form, scale=100 if fraction else 1)


def _change(delta: Delta | None, *, holm: bool) -> list[str]:
    """Relative difference and p-value."""
    p_value = None if delta is None else delta.p_holm if holm else delta.p_value
    return [_relative(delta), "" if p_value is None else f"{p_value:.3f}"]


def _relative(delta: Delta | None) -> str:
    relative = delta.relative if delta else None
    return "" if relative is None else _points(relative, form="+.1f")


def _scorer(scores: Scores) -> str:
    measures = scores.systems[0].measures
    signed = [f"{name} {score.signature}" for name, score in measures.items()]
    return "; ".join(signed) or scores.scorer


def _compounds(scores: Scores) -> list[str]:
    """WER with compounds merged, if that makes a difference."""
    merged = [(system, system.compound_wer) for system in scores.systems if system.compound_wer is not None]
    if all(value.value == system.wer.value for system, value in merged):
        return []
    return [f"WER % with compounds merged: {', '.join(f'{s.name} {_points(value)}' for s, value in merged)}"]


def _disagreements(scores: Scores) -> list[str]:
    return [
        f"{system.name}: jiwer and kaldialign count the errors of {system.disagreements} clips differently"
        for system in scores.systems
        if system.disagreements
    ]


def sets(scores: Scores) -> list[str]:
    """A table of systems by data sets, those out of domain last, and the pooled figures."""
    columns = set_columns(scores)
    if not columns:
        return []
    headings = ["system"]
    for field, value in columns:
        clips = scores.systems[0].groups[field][value].clips
        headings += [f"{set_name(scores, field, value)} ({clips} clips)", "relative %"]
    rows = [[system.name, *_set_cells(scores, system, columns)] for system in scores.systems]
    name = next(iter(scores.systems[0].measures), "WER")
    return [f"{name} by data set:", aligned(headings, rows)]


def _set_cells(scores: Scores, system: SystemScores, columns: list[tuple[str, str]]) -> Iterator[str]:
    for field, value in columns:
        found = _of_group(scores, system.groups.get(field, {}).get(value))
        yield from ("", "") if found is None else (_points(found[0], found[2]), _relative(found[1]))


def _of_group(scores: Scores, group: GroupScore | None) -> tuple[Estimate, Delta | None, bool] | None:
    """Value, difference and unit of the score that stands for a group; None where it has none."""
    if group is None:
        return None
    name = next(iter(scores.systems[0].measures), None)
    if name is None:
        return group.wer, group.delta, True
    score: MeasuredScore | None = group.measures.get(name)
    return None if score is None else (score.value, score.delta, score.fraction)


def worst_groups(scores: Scores) -> list[str]:
    """One line for every field and system: the group that fares worst."""
    return [
        f"worst {field} of {system.name}: {value}, {_named(scores, found[0], found[2])}, {clips} clips"
        for system in scores.systems
        for field, value in system.worst_group.items()
        if field not in (DATA, DOMAIN)
        and (found := _of_group(scores, system.groups[field][value])) is not None
        and (clips := system.groups[field][value].clips)
    ]


def _named(scores: Scores, value: Estimate, fraction: bool) -> str:
    name = next(iter(scores.systems[0].measures), "WER")
    return f"{name} {_points(value, fraction)}{' %' if fraction else ''}"


def most_worsened(scores: Scores) -> list[str]:
    """One line for every field and system: the group that lost most, beside what all clips lost."""
    return [
        _worsened(scores, system, field, value)
        for system in scores.systems
        for field, value in system.most_worsened.items()
    ]


def _worsened(scores: Scores, system: SystemScores, field: str, value: str) -> str:
    found, (_, overall, fraction) = _of_group(scores, system.groups[field][value]), _headline(system)
    if found is None or found[1] is None or overall is None:
        return ""
    name = next(iter(scores.systems[0].measures), "WER")
    delta, p_holm = found[1], found[1].p_holm
    chance = "" if p_holm is None else f" (p {p_holm:.3f} after Holm over the groups)"
    return (
        f"most worsened {'data set' if field == DATA else field} of {system.name}: {value}, {name}"
        f" {_points(delta.absolute, fraction, '+.1f')} points{chance};"
        f" all clips {_points(overall.absolute, fraction, '+.1f')}"
    )
