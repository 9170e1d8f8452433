"""`shoal search`: how shallow can it be within a budget?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal import wording
from shoal.cli import options
from shoal.cli.table import aligned
from shoal.data.settings import DataSettings
from shoal.models.settings import ModelSettings
from shoal.plan_search.settings import SearchSettings
from shoal.settings import DATA, OUTPUT

if TYPE_CHECKING:
    from shoal.schema import Confirmation, Estimate, Search, SearchStep

STEP_HEADINGS = ("plan", "removed", "{score}", "worse by %", "MB", "ms", "holds")
TEST_HEADINGS = ("on unseen clips", "removed", "{score}", "worse by %", "p", "p Holm", "holds")


@options.command
def search(
    model: options.Model,
    /,
    *,
    data: options.Data,
    confirm_data: Annotated[
        list[str] | None,
        DATA,
        Parameter(
            metavar="MANIFEST",
            help="Clips to confirm plans on; default: half of --data, split by speaker where known. Repeatable.",
        ),
    ] = None,
    task: options.TaskName = "asr",
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[SearchSettings, options.Flat] = SearchSettings(),
    out: Annotated[
        Path, OUTPUT, Parameter(help="Folder for search.json and plan.json; the same command again resumes.")
    ] = Path("search"),
    json: options.Json = False,
) -> int:
    """Find the shallowest plan within a budget, confirmed on clips that the search has not seen."""
    from shoal import tasks
    from shoal.cli.progress import progress_bars
    from shoal.evaluation.scores.registry import headline

    headline(tasks.get(task))
    dataset = options.read_data(data, rows, task, settings.seed)
    unseen = options.read_data(confirm_data, rows, task, settings.seed) if confirm_data else None
    loaded = shoal.load(model, loading)
    with progress_bars() as progress:
        document = shoal.search(loaded, dataset, task, settings, confirm_data=unseen, out=out, progress=progress)
    print(options.as_json(document) if json else summary(document, out))
    if document.chosen is None:
        print(f"shoal: {document.reason}", file=sys.stderr)
        return options.CHECK_FAILED
    return 0


def summary(found: Search, out: Path) -> str:
    """For a person: what was asked, the plans that were tried, the test on unseen clips, the outcome."""
    from shoal.plan_search.words import budget_words

    name = f"{found.score_name} %" if found.fraction else found.score_name
    lines = [
        f"{found.model.ref}: {found.model.depth} layers, task {found.task}; "
        f"{budget_words(found.budget, found.score_name)}",
        f"{found.validation_clips} clips to choose on, {found.confirmation_clips} to confirm"
        + (f"; speakers in both: {found.shared_speakers}" if found.shared_speakers else ""),
        aligned(_named(STEP_HEADINGS, name), [_full_cells(found), *(_step_cells(found, s) for s in found.steps)]),
    ]
    if found.confirmations:
        rows = [_test_cells(found, each) for each in found.confirmations]
        lines.append(aligned(_named(TEST_HEADINGS, name), rows))
    return "\n".join([*lines, *_outcome(found, out)])


def _outcome(found: Search, out: Path) -> list[str]:
    if found.chosen is None:
        return [f"no plan; {found.reason}", str(out / "search.json")]
    what = "layers" if found.part == "layer" else f"the {found.part} of layers"
    removed = ", ".join(map(str, found.chosen.layers))
    return [f"remove {what} {removed}. {found.reason}", str(out / "search.json"), str(out / "plan.json")]


def _named(headings: tuple[str, ...], score: str) -> list[str]:
    return [heading.format(score=score) for heading in headings]


def _points(found: Search, score: Estimate) -> str:
    return wording.plain(score, ".1f", scale=100 if found.fraction else 1)


def _full_cells(found: Search) -> list[str]:
    return ["full", "0", _points(found, found.full_validation), "", "", "", ""]


def _step_cells(found: Search, step: SearchStep) -> list[str]:
    costs = (step.megabytes, step.milliseconds)
    return [
        step.plan.name,
        str(len(step.plan.layers)),
        _points(found, step.score),
        wording.plain(step.change, "+.1f", scale=100),
        *("" if cost is None else f"{cost:.1f}" for cost in costs),
        "yes" if step.holds else "no",
    ]


def _test_cells(found: Search, test: Confirmation) -> list[str]:
    return [
        test.plan.name,
        str(len(test.plan.layers)),
        _points(found, test.score),
        wording.plain(test.change, "+.1f", scale=100),
        *("" if p_value is None else f"{p_value:.3f}" for p_value in (test.p_value, test.p_holm)),
        "yes" if test.holds else "no",
    ]
