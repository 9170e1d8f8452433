"""The sections on what was measured: scores with intervals, by group, and what the checkpoint costs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shoal import wording
from shoal.cards.facts import CardFacts, shown_name
from shoal.cards.markdown import code, section
from shoal.cards.measured import Measured
from shoal.control_tables import control_sentence
from shoal.data_names import data_name
from shoal.schema import Audit, Bench, Delta, MeasuredScore, Plan, ScopeAudit, SystemBench
from shoal.score_tables import change_text, differences, notable_groups, p_note, relative_text, value_text
from shoal.tables import Table, plain

SHOWN_GROUPS = 30
"""A longer table of groups is folded."""


def scores(facts: CardFacts) -> str:
    """Every measure of every task and data set, then every group."""
    if not facts.measured:
        return ""
    rows = [(result, *item) for result in facts.measured for item in result.system.measures.items()]
    parts = [
        _explained(facts.measured),
        Table.of("", SCORES, rows).as_markdown(),
        "\n".join(_p_notes(facts.measured)),
        "\n".join(_listening(facts.measured)),
        _groups(facts.measured),
        _made_by(facts.measured),
    ]
    return section("Scores", "\n\n".join(part for part in parts if part))


def costs(facts: CardFacts) -> str:
    """Seconds and bytes."""
    if not facts.benches:
        return ""
    text = (
        "Seconds a clip; times are paired with the unpruned model's on the same clips, and below 1 is faster. They "
        "hold for this machine and software only."
    )
    return section("Speed and memory", f"{text}\n\n{Table.of('', COSTS, facts.benches).as_markdown()}")


def audits(facts: CardFacts) -> str:
    """How redundant the layers were found to be."""
    if not facts.audits:
        return ""
    plan = facts.plans[-1][1] if facts.plans else None
    rows = [row for audit in facts.audits for row in _audited(audit, plan)]
    columns = ("Data", "Task", "Input", "Scope", "Positions", "Removed block")
    return section("Audits", Table(columns, rows).as_markdown())


def _explained(measured: Sequence[Measured]) -> str:
    over = dict.fromkeys(wording.drawn_over(result.scores.drawn, result.scores.cluster) for result in measured)
    text = f"In brackets: the {measured[0].scores.level:.0%} interval, from resampling {' or '.join(over)}."
    if any(result.baseline is not None for result in measured):
        names = dict.fromkeys(_baseline_name(result) for result in measured if result.baseline is not None)
        text += (
            f" Differences are paired with the baseline on the same clips ({', '.join(names)}); p is two-sided, after "
            "Holm's correction unless it says alone."
        )
    return text


def _p_notes(measured: Sequence[Measured]) -> list[str]:
    """Where no p-value of the table could be small."""
    return [
        f"- {result.task} on {code(data_name(result.data))}, {name}: {note}"
        for result in measured
        for name in result.system.measures
        if (note := p_note(result.scores, differences(result.scores, name)))
    ]


def _listening(measured: Sequence[Measured]) -> list[str]:
    """What controls say."""
    return [
        plain(f"- With the wrong audio, in {result.task} on {code(data_name(result.data))}: this model {sentence}")
        for result in measured
        if (sentence := control_sentence(result.scores, result.system))
    ]


def _baseline_name(result: Measured) -> str:
    assert result.baseline is not None
    return code(shown_name(result.baseline.model_ref or result.scores.model.ref))


def _p_value(delta: Delta | None) -> str:
    """After Holm's correction where there was one; the plain one is marked."""
    if delta is None or delta.p_holm is not None or delta.p_value is None:
        return wording.p_value(delta.p_holm if delta else None)
    return f"{wording.p_value(delta.p_value)} (alone)"


Row = tuple[Measured, str, MeasuredScore]
"""A result, and one of its scores with its name."""
SCORES: dict[str, Callable[[Row], str]] = {
    "Task": lambda row: row[0].task,
    "Data": lambda row: code(data_name(row[0].data)),
    "Language": lambda row: ", ".join(row[0].data.languages) or "not stated",
    "Clips": lambda row: f"{row[0].data.clips:,}",
    "Score": lambda row: row[1],
    "This model": lambda row: value_text(row[2]),
    "Baseline": lambda row: value_text(row[0].baseline.measures.get(row[1]) if row[0].baseline else None),
    "Difference": lambda row: change_text(row[2]),
    "Relative": lambda row: relative_text(row[2]),
    "p": lambda row: _p_value(row[2].delta),
}


def _groups(measured: Sequence[Measured]) -> str:
    rows = [row for result in measured for row in _group_rows(result)]
    if not rows:
        return ""
    columns = ("Task", "Data", "Field", "Group", "Clips", "Score", *list(SCORES)[5:6], *list(SCORES)[7:])
    table = Table(columns, rows).as_markdown()
    if len(rows) > SHOWN_GROUPS:
        table = f"<details><summary>{len(rows)} rows, group by group</summary>\n\n{table}\n\n</details>"
    notable = [
        plain(f"- {group.title.capitalize()} of {result.task}: {code(group.group)}, {group.score}")
        for result in measured
        for group in notable_groups(result.scores, [result.system])
    ]
    return "\n\n".join(["### By group", *(["\n".join(notable)] if notable else []), table])


def _group_rows(result: Measured) -> Iterator[list[str]]:
    for field, groups in result.system.groups.items():
        for value, group in groups.items():
            if (score := result.scores.headline_of(group)) is None:
                continue
            yield [
                result.task,
                code(data_name(result.data)),
                field,
                value,
                f"{group.clips:,}",
                result.scores.headline,
                value_text(score),
                change_text(score),
                relative_text(score),
                _p_value(score.delta),
            ]


def _made_by(measured: Sequence[Measured]) -> str:
    lines = [
        f"- {result.task} on {code(data_name(result.data))}: normaliser {result.scores.normaliser or 'none'}; "
        f"{_signatures(result)}; {result.scores.provenance.device}, {result.scores.provenance.dtype}"
        for result in measured
    ]
    return "\n".join(lines)


def _signatures(result: Measured) -> str:
    return "; ".join(dict.fromkeys(score.signature for score in result.system.measures.values()))


COSTS: dict[str, Callable[[tuple[Bench, SystemBench]], str]] = {
    "Data": lambda timed: code(data_name(timed[0].data)),
    "Device": lambda timed: f"{timed[0].provenance.device}, {timed[0].provenance.dtype}",
    "Batch": lambda timed: str(timed[0].batch_size),
    "Parameters": lambda timed: f"{timed[1].parameters:,}",
    "Checkpoint, MB": lambda timed: _megabytes(timed[1].checkpoint_bytes),
    "Peak memory, MB": lambda timed: _megabytes(timed[1].peak_memory_bytes),
    "Encoding, s": lambda timed: wording.plain(timed[1].encode_seconds, ".3f"),
    "Prefill, s": lambda timed: wording.plain(timed[1].prefill_seconds, ".3f"),
    "A token, ms": lambda timed: f"{1000 * timed[1].decode_seconds.value:.1f}",
    "In all, s": lambda timed: wording.plain(timed[1].total_seconds, ".3f"),
    "In all / unpruned, mean of ratios": lambda timed: wording.plain(timed[1].total_ratio, ".3f"),
    "Parameters / unpruned": lambda timed: "" if (ratio := timed[1].parameter_ratio) is None else f"{ratio:.3f}",
}


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f}"


def _audited(audit: Audit, plan: Plan | None) -> Iterator[list[str]]:
    """One line for each scope; with the removed block's distance, if the audit is of the model it was removed from."""
    for name, measured in audit.inputs.items():
        for scope, part in measured.scopes.items():
            distance = ""
            if plan is not None and plan.block is not None and plan.depth == audit.depth:
                distance = _distance(part, plan.block[0], plan.block[1] - plan.block[0], audit.level)
            yield [code(data_name(audit.data)), audit.task, name, scope, f"{part.positions:,}", distance]


def _distance(part: ScopeAudit, layer: int, count: int, level: float) -> str:
    """Of the block of `count` layers from `layer` on, by every metric of blocks; angles in units of pi."""
    titles = {"angular": "angular distance / π"}
    return ", ".join(
        f"{titles.get(name, values.title)} {wording.plain(values.estimate(range(layer, layer + count), level), '.4f')}"
        for name, values in part.of_blocks().items()
    )
