"""The search: plans tried on the validation split, and the proof on clips that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Figure, Section, Table
from shoal.report.units import score_text
from shoal.schema import Confirmation, Estimate, Search, SearchStep

ID, TITLE, SHORT = "search", "The shallowest plan within the budget", "Search"
OUTCOMES = {
    True: ("within the budget", figure_style.GREEN, "circle"),
    False: ("not within it", figure_style.VERMILLION, "x"),
}


def build(bundle: Bundle) -> Section | None:
    """One article for each search; None without one."""
    if not bundle.searches:
        return None
    articles = [_article(named, index) for index, named in enumerate(bundle.searches)]
    return Section(ID, TITLE, SHORT, template="search.html", view={"articles": articles}, draws=True)


def _article(named: Named[Search], index: int) -> dict[str, Any]:
    search = named.document
    return {
        "heading": f"{search.model.ref} · {search.task}" + (f" · {named.label}" if named.label else ""),
        "verdict": verdict(search),
        "reason": search.reason,
        "lead": _lead(search),
        "depth": search.model.depth,
        "removed": search.chosen.layers if search.chosen else [],
        "figure": Figure(f"search-{index}", *_titles(search), {"": _figure(search)}),
        "confirmations": _confirmation_table(search) if search.confirmations else None,
        "steps": _step_table(search),
    }


def headline_words(search: Search) -> tuple[str, str]:
    """Verdict and explanation for the top of a report without scores."""
    if search.chosen is None or not search.chosen.layers:
        return f"No plan was found with {_budget(search)}", search.reason or verdict(search)
    part = wording.PART_OF[search.chosen.part]
    size = f"{len(search.chosen.layers)} of {search.model.depth}"
    return f"{part[:1].upper()}{part[1:]}{size} decoder layers {_may_go(search)}", verdict(search)


def _may_go(search: Search) -> str:
    """Bold only where the chosen plan held on unseen clips."""
    found = _confirmed(search)
    if found is None:
        return "may go"
    can = "can go at" if found.holds else "may go, at"
    return f"{can} {_signed_change(search, found)} relative {search.score_name}"


def verdict(search: Search) -> str:
    """What was chosen, or that nothing was, in one sentence."""
    if search.chosen is None:
        return f"No plan was found that keeps to {_budget(search)}."
    if not search.chosen.layers:
        return f"Chosen: the unpruned model. No layer can go within {_budget(search)}."
    return f"Chosen: {search.chosen.name}, without {wording.removed_names(search.chosen)}{_proof(search)}."


def _proof(search: Search) -> str:
    found = _confirmed(search)
    if found is None:
        return "; it was not tested on unseen clips"
    change = f"{search.score_name} {_signed_change(search, found)} on unseen clips"
    return f"; {change}, p = {wording.p_value(found.p_holm)} after Holm’s correction"


def _signed_change(search: Search, found: Confirmation) -> str:
    """Changes are stored as what is lost; a score falls."""
    return wording.relative_change(found.change.negated() if search.higher_is_better else found.change)


def _confirmed(search: Search) -> Confirmation | None:
    """The test of the chosen plan on unseen clips."""
    chosen = search.chosen
    found = [c for c in search.confirmations if chosen and _same(c, chosen.layers, chosen.part)]
    return found[0] if found else None


def _same(confirmation: Confirmation, layers: list[int], part: str) -> bool:
    return confirmation.plan.layers == layers and confirmation.plan.part == part


def _budget(search: Search) -> str:
    return wording.listing(budget_words(search))


def _score_text(search: Search, estimate: Estimate) -> str:
    return score_text(search.score_name, estimate, fraction=search.fraction)


def budget_words(search: Search) -> list[str]:
    """Each bound of a budget in words."""
    budget, score_name = search.budget, search.score_name
    verb = "loss" if search.higher_is_better else "rise"
    limits = [
        (budget.max_increase, lambda v: f"at most {wording.percent(v, 0)} relative {verb} of {score_name}"),
        (budget.max_layers, lambda v: f"at most {wording.plural(int(v), 'layer')}"),
        (budget.max_milliseconds, lambda v: f"at most {v:g}{wording.SPACE}ms a clip"),
        (budget.max_megabytes, lambda v: f"at most {v:,g}{wording.SPACE}MB of weights"),
    ]
    return [say(value) for value, say in limits if value is not None] or ["no bound"]


def _lead(search: Search) -> str:
    part = "" if search.part == "layer" else f", {figure_style.PART_NAMES[search.part]} only"
    sure = (
        "by the value alone"
        if search.budget.point
        else f"at {wording.level_name(search.budget.confidence)} one-sided confidence"
    )
    return (
        f"Budget: {_budget(search)}, {sure}{_informed(search)}. Strategy "
        f"{search.strategy} by {search.metric}, {search.input} input, scope “{search.scope}”{part}. Tried on "
        f"{wording.plural(search.validation_clips, 'clip')}, tested on "
        f"{wording.count(search.confirmation_clips)} others{_speakers(search)}. The unpruned {search.score_name}: "
        f"{_score_text(search, search.full_validation)} and "
        f"{_score_text(search, search.full_confirmation)}. {search.replicates:,} bootstrap replicates."
    )


def _informed(search: Search) -> str:
    """What plans are tested against where the budget bounds costs only."""
    if search.budget.max_increase is not None or search.tested_increase is None:
        return ""
    return f"; for information tested against a change of {wording.percent(search.tested_increase, 0)}"


def _speakers(search: Search) -> str:
    if search.data.speakers is None:
        return ""
    if search.shared_speakers:
        return f"; {wording.plural(search.shared_speakers, 'speaker')} in both splits"
    return "; no speaker is in both"


def _titles(search: Search) -> tuple[str, str]:
    worse = "fall" if search.higher_is_better else "rise"
    confidence = wording.level_name(search.budget.confidence)
    which = "" if search.budget.point else ", which must stay below the dashed line"
    return (
        f"Relative {worse} of {search.score_name} against layers removed",
        f"Marks: the value on the validation split; whiskers: up to the one-sided bound at {confidence}{which}. "
        "Diamonds: the same on the clips that confirm.",
    )


def _figure(search: Search) -> go.Figure:
    deepest = max((len(step.plan.layers) for step in search.steps), default=1)
    figure = figure_style.new_figure(400, x="decoder layers removed n", y="relative change (%), positive is worse")
    figure.update_xaxes(dtick=1 if deepest <= 16 else None, range=[-0.3, deepest + 0.7])
    figure.add_hline(y=0, line={"color": figure_style.GREY, "width": 1})
    if search.budget.max_increase is not None:
        _draw_budget(figure, search.budget.max_increase, deepest)
    for holds, (name, colour, symbol) in OUTCOMES.items():
        _draw(figure, [s for s in search.steps if s.holds is holds], name, colour, symbol, 0.0)
    for holds, (name, colour, _) in OUTCOMES.items():
        found = [c for c in search.confirmations if c.holds is holds]
        _draw(figure, found, f"unseen clips: {name}", colour, "diamond-open", 0.18)
    return figure


def _draw_budget(figure: go.Figure, limit: float, deepest: int) -> None:
    figure.add_scatter(
        x=[-0.3, deepest + 0.7],
        y=[100 * limit] * 2,
        mode="lines",
        name=f"budget +{100 * limit:g} %",
        line={"color": figure_style.BLUE, "width": 1.8, "dash": "dash"},
        hoverinfo="skip",
    )


def _draw(
    figure: go.Figure,
    points: Sequence[SearchStep | Confirmation],
    name: str,
    colour: str,
    symbol: str,
    offset: float,
) -> None:
    if not points:
        return
    upward = [point.change.model_copy(update={"low": None}) for point in points]
    figure.add_scatter(
        x=[len(point.plan.layers) + offset for point in points],
        y=[100 * point.change.value for point in points],
        error_y=figure_style.error_bars(upward, 100) | {"color": colour},
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        customdata=[[p.plan.name, wording.removed_names(p.plan), wording.relative_change(p.change)] for p in points],
        hovertemplate="%{customdata[0]}: without %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )


def _confirmation_table(search: Search) -> Table:
    rows = [
        [
            c.plan.name,
            str(len(c.plan.layers)),
            wording.removed_names(c.plan),
            _score_text(search, c.score),
            wording.relative_change(c.change),
            wording.p_value(c.p_value),
            wording.p_value(c.p_holm),
            "yes" if c.holds else "no",
        ]
        for c in search.confirmations
    ]
    columns = [
        "Plan",
        "n",
        "Removes",
        search.score_name,
        "Worse by, relative",
        "p",
        "p after Holm",
        "Holds",
    ]
    chosen = search.chosen
    marked = {row for row, c in enumerate(search.confirmations) if chosen and _same(c, chosen.layers, chosen.part)}
    caption = "On clips that the search has not seen; p of the hypothesis that the plan breaks the budget"
    return Table(caption, columns, rows, highlight=frozenset(marked), text_columns=frozenset({2}))


def _step_table(search: Search) -> Table:
    costs = any(s.milliseconds is not None or s.megabytes is not None for s in search.steps)
    rows = [
        [
            step.plan.name,
            str(len(step.plan.layers)),
            wording.removed_names(step.plan),
            _score_text(search, step.score),
            wording.relative_change(step.change),
            "yes" if step.holds else "no",
            *(_costs(step) if costs else []),
        ]
        for step in search.steps
    ]
    columns = ["Plan", "n", "Removes", search.score_name, "Worse by, relative", "Holds"]
    return Table(
        "Plans tried on the validation split",
        columns + (["ms a clip", "MB"] if costs else []),
        rows,
        text_columns=frozenset({2}),
    )


def _costs(step: SearchStep) -> list[str]:
    values = (step.milliseconds, step.megabytes)
    return ["–" if value is None else wording.fixed(value, 1) for value in values]
