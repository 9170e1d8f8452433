"""`shoal search`: how shallow can it be within a budget?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings, Fields
from shoal.models.settings import ModelSettings
from shoal.plan_search.settings import SearchSettings
from shoal.settings import DATA, OUTPUT, Settings
from shoal.tables import Table

if TYPE_CHECKING:
    from shoal.schema import Confirmation, Estimate, Search, SearchStep

STEP_HEADINGS = ("plan", "removed", "{score}", "worse by %", "MB", "ms", "ms at most", "holds", "clips needed")
TEST_HEADINGS = ("on unseen clips", "removed", "{score}", "worse by %", "p", "p seen", "p Holm", "holds")


class ConfirmationClips(Settings):
    """Which clips plans are confirmed on."""

    confirm_data: Annotated[tuple[str, ...], DATA, Parameter(metavar="MANIFEST")] = ()
    """Clips to confirm plans on, given as for --data; default: half of --data, split by speaker where known.
    Repeatable."""
    confirm_limit: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Number of clips of --confirm-data, evenly spaced; default: --limit."""
    confirm_where: Annotated[Fields, DATA] = Field(default={})
    """Confirm only on rows of --confirm-data whose field has this value; default: --where. Repeatable."""


@options.command
def search(
    model: options.Model,
    /,
    *,
    data: options.Data,
    unseen: Annotated[ConfirmationClips, options.Flat] = ConfirmationClips(),
    task: options.TaskName = "asr",
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[SearchSettings, options.Flat] = SearchSettings(),
    out: Annotated[
        Path, OUTPUT, Parameter(help="Folder for search.json and plan.json; the same command again resumes.")
    ] = Path("search"),
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> int:
    """Find the shallowest plan within a budget, and test it on clips that the search has not seen."""
    from shoal import tasks
    from shoal.evaluation.scores.registry import headline

    headline(tasks.get(task))
    with printing.progress(out) as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        other = options.read_other(
            "--confirm",
            unseen.confirm_data,
            rows,
            unseen.confirm_limit,
            unseen.confirm_where,
            task,
            settings.seed,
            progress,
        )
        loaded = options.load(model, loading, progress)
        document = shoal.search(loaded, dataset, task, settings, confirm_data=other, out=out, progress=progress)
    written = ["search.json"] if document.chosen is None else ["search.json", "plan.json"]
    printing.show(document, [*summary(document), *advice(document, out)], *(out / name for name in written))
    if document.chosen is None:
        print(f"shoal: {document.reason}", file=sys.stderr)
        return options.CHECK_FAILED
    return 0


def summary(search: Search) -> list[str | Table]:
    """For a person: what was asked, the plans that were tried, the test on unseen clips, the outcome."""
    from shoal.plan_search.words import budget_words

    name = f"{search.score_name} %" if search.fraction else search.score_name
    lines: list[str | Table] = [
        f"{search.model.ref}: {search.model.depth} layers, task {search.task}; "
        f"{budget_words(search.budget, search.score_name)}",
        f"{search.validation_clips} clips to choose on, {search.confirmation_clips} to test"
        + (f"; speakers in both: {search.shared_speakers}" if search.shared_speakers else "")
        + _least_needed(search),
        *([f"{search.name} itself lacks {wording.layer_names(search.missing)}"] if search.missing else []),
        Table(_named(STEP_HEADINGS, name), [_full_cells(search), *(_step_cells(search, s) for s in search.steps)]),
    ]
    if search.confirmations:
        rows = [_test_cells(search, test) for test in search.confirmations]
        lines.append(Table(_named(TEST_HEADINGS, name), rows))
    return [*lines, _outcome(search)]


def _least_needed(search: Search) -> str:
    needed = search.least_clips_needed
    return "" if needed is None else f"; about {needed} would confirm a plan that changes nothing"


def _outcome(search: Search) -> str:
    from shoal.plan_search.words import how_sure

    if search.chosen is None:
        return f"no plan; {search.reason}"
    parts = "layers" if search.part == "layer" else f"the {search.part} of layers"
    return f"remove {parts} {','.join(map(str, search.chosen.layers))} ({how_sure(search)}). {search.reason}"


def advice(search: Search, out: Path) -> list[str]:
    """How far to trust it, and what to do next."""
    few = wording.few_clips(min(search.validation_clips, search.confirmation_clips))
    model = search.model.ref
    if search.chosen is not None and search.chosen.part == "layer":
        following = f"shoal prune {model} --plan {out / 'plan.json'}, then shoal evaluate the result on other clips"
    elif search.chosen is not None:
        following = f"shoal evaluate {model} --plan {out / 'plan.json'} on other clips"
    else:
        following = "allow more (--max-increase), or remove layers and heal: shoal prune, then shoal heal"
    return [*([f"caution: {few}"] if few else []), f"next: {following}"]


def _named(headings: tuple[str, ...], score: str) -> list[str]:
    return [heading.format(score=score) for heading in headings]


def _points(search: Search, score: Estimate) -> str:
    return wording.plain(score, ".1f", scale=100 if search.fraction else 1)


def _full_cells(search: Search) -> list[str]:
    return [search.name, str(len(search.missing)), _points(search, search.full_validation), *[""] * 6]


def _step_cells(search: Search, step: SearchStep) -> list[str]:
    costs = (step.megabytes, step.milliseconds, step.milliseconds_bound)
    return [
        step.plan.name,
        str(len(search.absent_layers(step.plan))),
        _points(search, step.score),
        wording.plain(step.change, "+.1f", scale=100),
        *("" if cost is None else f"{cost:.1f}" for cost in costs),
        "yes" if step.holds else "no",
        "" if step.clips_needed is None else str(step.clips_needed),
    ]


def _test_cells(search: Search, test: Confirmation) -> list[str]:
    return [
        test.plan.name,
        str(len(search.absent_layers(test.plan))),
        _points(search, test.score),
        wording.plain(test.change, "+.1f", scale=100),
        *("" if p_value is None else f"{p_value:.3f}" for p_value in (test.p_value, test.p_seen, test.p_holm)),
        "confirmed" if test.confirmed else "yes" if test.holds else "no",
    ]
