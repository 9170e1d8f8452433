"""The sections on what was measured: scores with intervals, by group, and what the checkpoint costs to run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shoal.cards.facts import CardFacts
from shoal.cards.markdown import code, p_value, section, table
from shoal.cards.measured import Measured
from shoal.data_names import data_name
from shoal.schema import Audit, Bench, MeasuredScore, Plan, ScopeAudit, SystemBench
from shoal.wording import plain, plain_score, plural

SHOWN_GROUPS = 30
"""A longer table of groups is folded."""
SCORES = (
    "Task",
    "Data",
    "Language",
    "Clips",
    "Score",
    "This model",
    "Baseline",
    "Difference",
    "Relative",
    "p",
)
GROUPS = ("Task", "Data", "Field", "Group", "Clips", "Score", "This model", "Difference", "Relative", "p")
COSTS = (
    "Data",
    "Device",
    "Batch",
    "Parameters",
    "Checkpoint, MB",
    "Peak memory, MB",
    "Encoding, s",
    "Prefill, s",
    "A token, ms",
    "In all, s",
    "In all / unpruned",
    "Parameters / unpruned",
)


def scores(facts: CardFacts) -> str:
    """Every measure of every task and data set, then every group."""
    if not facts.measured:
        return ""
    parts = [
        _explained(facts.measured),
        table(SCORES, [row for result in facts.measured for row in _rows(result)]),
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
    return section("Speed and memory", f"{text}\n\n{table(COSTS, [_cost(*result) for result in facts.benches])}")


def audits(facts: CardFacts) -> str:
    """How redundant the layers were found to be."""
    if not facts.audits:
        return ""
    plan = facts.plans[-1][1] if facts.plans else None
    rows = [row for audit in facts.audits for row in _audited(audit, plan)]
    return section("Audits", table(("Data", "Task", "Input", "Scope", "Positions", "Removed block"), rows))


def _explained(measured: Sequence[Measured]) -> str:
    level = measured[0].scores.level
    text = f"In brackets: the {level:.0%} interval, from resampling clips or speakers."
    if any(result.baseline is not None for result in measured):
        names = dict.fromkeys(_baseline_name(result) for result in measured if result.baseline is not None)
        text += (
            f" Differences are paired with the baseline on the same clips ({', '.join(names)}); p is two-sided, after "
            "Holm's correction unless it says alone."
        )
    return text


def _baseline_name(result: Measured) -> str:
    assert result.baseline is not None
    return code(result.baseline.model_ref or result.scores.model.ref)


def _rows(result: Measured) -> Iterator[list[str]]:
    theirs = {} if result.baseline is None else result.baseline.measures
    for name, score in result.system.measures.items():
        base = theirs.get(name)
        yield [
            result.task,
            code(data_name(result.data)),
            ", ".join(result.data.languages) or "not stated",
            f"{result.data.clips:,}",
            name,
            plain_score(score.value, fraction=score.fraction),
            "" if base is None else plain_score(base.value, fraction=base.fraction),
            *_difference(score),
        ]


def _difference(score: MeasuredScore) -> list[str]:
    """In points, relative, and the p-value."""
    delta = score.delta
    if delta is None:
        return ["", "", ""]
    points = plain_score(delta.absolute, "+.1f", fraction=score.fraction)
    return [
        points.replace(" %", " points"),
        plain_score(delta.relative, "+.1f", fraction=True),
        p_value(delta),
    ]


def _groups(measured: Sequence[Measured]) -> str:
    rows = [row for result in measured for row in _group_rows(result)]
    if not rows:
        return ""
    worst = [line for result in measured for line in _worst(result)]
    found = table(GROUPS, rows)
    if len(rows) > SHOWN_GROUPS:
        found = f"<details><summary>{plural(len(rows), 'row')}, group by group</summary>\n\n{found}\n\n</details>"
    return "\n\n".join(["### By group", *(["\n".join(worst)] if worst else []), found])


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
                plain_score(score.value, fraction=score.fraction),
                *_difference(score),
            ]


def _worst(result: Measured) -> Iterator[str]:
    name = result.scores.headline
    for field, value in result.system.worst_group.items():
        group = result.system.groups[field][value]
        if score := result.scores.headline_of(group):
            yield (
                f"- Worst {field} of {result.task}: {code(value)}, {name} "
                f"{plain_score(score.value, fraction=score.fraction)}, {plural(group.clips, 'clip')}"
            )
    for field, value in result.system.most_worsened.items():
        score = result.scores.headline_of(result.system.groups[field][value])
        if score and score.delta is not None:
            yield f"- Most worsened {field} of {result.task}: {code(value)}, {name} {_difference(score)[0]}"


def _made_by(measured: Sequence[Measured]) -> str:
    lines = [
        f"- {result.task} on {code(data_name(result.data))}: normaliser {result.scores.normaliser or 'none'}; "
        f"{_signatures(result)}; {result.scores.provenance.device}, {result.scores.provenance.dtype}"
        for result in measured
    ]
    return "\n".join(lines)


def _signatures(result: Measured) -> str:
    return "; ".join(dict.fromkeys(score.signature for score in result.system.measures.values()))


def _cost(bench: Bench, system: SystemBench) -> list[str]:
    peak = system.peak_memory_bytes
    ratio = system.parameter_ratio
    return [
        code(data_name(bench.data)),
        f"{bench.provenance.device}, {bench.provenance.dtype}",
        str(bench.batch_size),
        f"{system.parameters:,}",
        f"{system.checkpoint_bytes / 1e6:,.0f}",
        "" if peak is None else f"{peak / 1e6:,.0f}",
        plain(system.encode_seconds, ".3f"),
        plain(system.prefill_seconds, ".3f"),
        f"{1000 * system.decode_seconds.value:.1f}",
        plain(system.total_seconds, ".3f"),
        plain(system.total_ratio, ".3f"),
        "" if ratio is None else f"{ratio:.3f}",
    ]


def _audited(audit: Audit, plan: Plan | None) -> Iterator[list[str]]:
    """One line for each scope; with the removed block's distance, if the audit is of the model it was removed from."""
    for name, found in audit.inputs.items():
        for scope, part in found.scopes.items():
            distance = ""
            if plan is not None and plan.block is not None and plan.depth == audit.depth:
                distance = _distance(part, plan.block[0], plan.block[1] - plan.block[0], audit.level)
            yield [
                code(data_name(audit.data)),
                audit.task,
                name,
                scope,
                f"{part.positions:,}",
                distance,
            ]


def _distance(part: ScopeAudit, layer: int, count: int, level: float) -> str:
    """Of the block of `count` layers from `layer` on, by every metric of blocks; angular distances as a share of pi."""
    titles = {"angular": "angular distance / π"}
    return ", ".join(
        f"{titles.get(name, values.title)} {plain(values.estimate(range(layer, layer + count), level), '.4f')}"
        for name, values in part.of_blocks().items()
    )
