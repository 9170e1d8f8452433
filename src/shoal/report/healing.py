"""What healing gains: pruned models, healed by each target or not at all, on the same test clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shoal import wording
from shoal.report import healing_figure, healing_words, score_lines
from shoal.report.bundle import Bundle, Named
from shoal.report.healing_cells import PlanCells, against, by_plan, put_back
from shoal.report.healing_words import target_title
from shoal.report.parts import Section
from shoal.schema import Healing, HealingCell
from shoal.schema.heal import EDIT_RATE, NONE
from shoal.score_tables import change_text, delta_text, relative_text, value_text
from shoal.tables import Table

ID, TITLE, SHORT = "healing", "What healing gains", "Healing"
STANDINGS = {"alike": "not told apart", "lower": "lower", "higher": "higher", "unknown": "–"}


def build(bundle: Bundle) -> Section | None:
    """One article for each healing document; None without one."""
    if not bundle.healings:
        return None
    articles = [_article(named, index) for index, named in enumerate(bundle.healings)]
    draws = any(named.document.cells for named in bundle.healings)
    return Section(ID, TITLE, SHORT, template="healing.html", view={"articles": articles}, draws=draws)


def _article(named: Named[Healing], index: int) -> dict[str, Any]:
    healing, group = named.document, f"healing-{index}"
    drawn = healing_figure.figure(healing, group) if healing.cells else None
    return {
        "heading": named.heading,
        "sentences": healing_words.sentences(healing),
        "lead": _lead(healing),
        "group": group,
        "figure": drawn,
        "choices": score_lines.choices(drawn, healing.score_name) if drawn else [],
        "table": _table(healing) if healing.cells else None,
        "further": _further(healing),
        "settings": _settings(healing),
    }


def _lead(healing: Healing) -> str:
    data, name = healing.data, healing.score_name
    level = wording.level_name(healing.baseline.value.level)
    no_error = " Of this task it counts edits against the reference, which are no errors." if name == EDIT_RATE else ""
    return (
        f"Healed on {_amount(healing.train_data.clips, healing.train_data.seconds)}; {name} on "
        f"{_amount(data.clips, data.seconds)} for the test.{no_error} The "
        f"unpruned model: {value_text(healing.baseline)}. Brackets are {level} intervals; what "
        "healing changes is paired on the same clips. Two targets are told apart only where the intervals of their "
        "changes do not overlap. The best target is the best on these clips, so a part of its lead is luck."
    )


def _amount(clips: int, seconds: float) -> str:
    return f"{wording.plural(clips, 'clip')} ({wording.duration(seconds)})"


def _table(healing: Healing) -> Table:
    pairs = [(group, cell) for group in by_plan(healing) for cell in group.cells]
    columns: dict[str, Callable[[PlanCells, HealingCell], str]] = {
        "Model": lambda _, cell: _name(cell),
        "n": lambda group, _: str(group.n),
        "Layers removed": lambda _, cell: wording.without_noun(wording.removed_names(cell.plan)),
        healing.score_name: lambda _, cell: value_text(cell.score),
        "Against the best target": _standing,
        "Gain from healing": lambda _, cell: delta_text(cell.score, cell.bought),
        "p": lambda _, cell: wording.p_value(cell.bought.p_value) if cell.bought else "–",
        "Share recovered": lambda _, cell: wording.percent_estimate(cell.recovered) if cell.recovered else "–",
        "What is trained": lambda _, cell: _healed(cell),
        "Layers left": lambda _, cell: str(cell.layers),
        "Parameters trained": _if_healed(lambda cell: wording.count(cell.trained_parameters)),
        "Fitted on": _if_healed(lambda cell: wording.fitted_on(cell.fitted_clips, cell.fitted_positions)),
        "Steps": _if_healed(lambda cell: f"{cell.steps:,}" if cell.steps else "none, a fit"),
        "Time": _if_healed(lambda cell: wording.duration(cell.seconds)),
    }
    return Table(
        list(columns),
        [[text(group, cell) for text in columns.values()] for group, cell in pairs],
        f"{healing.score_name} by plan and target; the best target of each plan is set apart",
        highlight=frozenset(row for row, (group, cell) in enumerate(pairs) if cell is group.best),
        text_columns=frozenset({2, 4, 8, 11}),
    )


def _if_healed(text: Callable[[HealingCell], str]) -> Callable[[PlanCells, HealingCell], str]:
    return lambda _, cell: "–" if cell.target == NONE else text(cell)


def _name(cell: HealingCell) -> str:
    return f"{cell.plan.name}, {'not healed' if cell.target == NONE else cell.target}"


def _healed(cell: HealingCell) -> str:
    more = " (puts one layer back for each block)" if put_back(cell) > 0 else ""
    return f"{target_title(cell.target)}{more}"


def _standing(group: PlanCells, cell: HealingCell) -> str:
    if group.best is None:
        return "–"
    return "best" if cell is group.best else STANDINGS[against(cell, group.best)]


def _further(healing: Healing) -> Table | None:
    """What the main table has no room for; None where nothing of it was measured."""
    if not any(cell.loss or cell.score.delta for cell in healing.cells):
        return None
    columns: dict[str, Callable[[HealingCell], str]] = {
        "Model": _name,
        "Change, absolute": lambda cell: change_text(cell.score),
        "Change, relative": lambda cell: relative_text(cell.score),
        "p": lambda cell: wording.p_value(cell.score.delta.p_value) if cell.score.delta else "–",
        "Loss, nats a token": lambda cell: wording.number_estimate(cell.loss) if cell.loss else "–",
        "Parameters": lambda cell: wording.count(cell.parameters),
    }
    caption = f"{healing.score_name} against the unpruned model, and the loss on the test clips"
    return Table.of(caption, columns, [cell for group in by_plan(healing) for cell in group.cells])


def _settings(healing: Healing) -> Table | None:
    rows = [[name, value] for name, value in _flat("", healing.settings)]
    if not rows:
        return None
    return Table(["Setting", "Value"], rows, "Settings of healing", text_columns=frozenset({1}))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested settings as `optimisation.steps`, `500`."""
    if isinstance(value, dict):
        for key, nested in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), nested)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, str(value)
