"""The search: plans tried on the validation split, and the tests on clips that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.plan_search.words import how_sure, test_of
from shoal.report import figure_style
from shoal.report.bundle import UNPRUNED, Bundle, Named
from shoal.report.parts import Figure, Section
from shoal.report.units import score_text
from shoal.schema import Confirmation, Estimate, Search, SearchStep
from shoal.tables import NONE, Table

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
        "heading": named.heading,
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
    """Verdict and explanation for the top of a report on a search that left no plan to speak of."""
    return f"No plan was found with {_budget(search)}", search.reason or verdict(search)


def verdict(search: Search) -> str:
    """What was chosen, or that nothing was, in one sentence."""
    if search.chosen is None:
        return f"No plan was found that keeps to {_budget(search)}."
    if not search.chosen.layers:
        return f"Chosen: the unpruned model. No layer can go within {_budget(search)}."
    return f"Chosen: {search.chosen.name}, without {wording.removed_names(search.chosen)}{_proof(search)}."


def _proof(search: Search) -> str:
    test = test_of(search, search.chosen) if search.chosen else None
    if test is None:
        return "; it was not tested on unseen clips"
    change = test.change.negated() if search.higher_is_better else test.change
    return f"; {search.score_name} {wording.relative_change(change)}, {how_sure(search)}"


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
        f"{wording.count(search.confirmation_clips)} others{_speakers(search)}. {search.score_name} of "
        f"{search.name if search.missing else UNPRUNED}: "
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
        tests = [test for test in search.confirmations if test.holds is holds]
        _draw(figure, tests, f"unseen clips: {name}", colour, "diamond-open", 0.18)
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
    figure: go.Figure, points: Sequence[SearchStep | Confirmation], name: str, colour: str, symbol: str, offset: float
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


def _trial_columns(search: Search) -> dict[str, Callable[[SearchStep | Confirmation], str]]:
    """What a plan was found to cost, on the clips to choose on or on those that confirm."""
    return {
        "Plan": lambda trial: trial.plan.name,
        "n": lambda trial: str(len(trial.plan.layers)),
        "Removes": lambda trial: wording.removed_names(trial.plan),
        search.score_name: lambda trial: _score_text(search, trial.score),
        "Worse by, relative": lambda trial: wording.relative_change(trial.change),
    }


def _confirmation_table(search: Search) -> Table:
    columns: dict[str, Callable[[Confirmation], str]] = {
        **_trial_columns(search),
        "p": lambda test: wording.p_value(test.p_value),
        "p, clips seen": lambda test: wording.p_value(test.p_seen),
        "Holds": lambda test: "confirmed" if test.confirmed else "yes" if test.holds else "no",
    }
    if any(test.p_holm is not None for test in search.confirmations):
        columns["p after Holm"] = lambda test: wording.p_value(test.p_holm)
    chosen = test_of(search, search.chosen) if search.chosen else None
    marked = [row for row, test in enumerate(search.confirmations) if test is chosen]
    caption = (
        "On clips that the search has not seen; p of the hypothesis that the plan breaks the budget, with one more "
        "clip on which it loses all that the token limit allows"
    )
    return Table.of(caption, columns, search.confirmations, ["Removes"], highlight=marked)


def _step_table(search: Search) -> Table:
    columns: dict[str, Callable[[SearchStep], str]] = {
        **_trial_columns(search),
        "Holds": lambda step: "yes" if step.holds else "no",
        "Clips needed": lambda step: NONE if step.clips_needed is None else wording.count(step.clips_needed),
        "ms a clip": lambda step: NONE if step.milliseconds is None else wording.fixed(step.milliseconds, 1),
        "MB": lambda step: NONE if step.megabytes is None else wording.fixed(step.megabytes, 1),
    }
    return Table.of("Plans tried on the validation split", columns, search.steps, ["Removes"])
