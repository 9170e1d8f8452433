"""`shoal search`: how shallow can it be within a budget?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from shoal import wording
from shoal.cli import typer_options as options
from shoal.cli.table import aligned
from shoal.schema import Confirmation, Estimate, InputKind, Part, Scope, Search, SearchStep

CHECK_FAILED = 4
STEP_HEADINGS = ("plan", "removed", "{score}", "worse by %", "MB", "ms", "holds")
TEST_HEADINGS = ("on unseen clips", "removed", "{score}", "worse by %", "p", "p Holm", "holds")


def search(
    model: options.Model,
    data: options.Data,
    confirm_data: Annotated[
        list[str] | None,
        typer.Option(
            "--confirm-data",
            metavar="MANIFEST",
            help="Clips for the test; default: half of --data, by speaker where known. Repeatable.",
        ),
    ] = None,
    max_increase: Annotated[
        str | None,
        typer.Option(
            "--max-increase",
            "--max-wer-increase",
            metavar="SHARE",
            help="How much worse the score may be, relative; default 25% for asr, else 10%, if no cost is bounded.",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", help="One-sided, of the bound and of the test on unseen clips.")
    ] = 0.95,
    point: Annotated[
        bool, typer.Option("--point", help="Let the value itself decide, not its bound or a test.")
    ] = False,
    max_layers: Annotated[
        int | None, typer.Option("--max-layers", help="Layers the decoder may have at most.")
    ] = None,
    max_ms: Annotated[
        float | None, typer.Option("--max-ms", help="Latency of a clip: encode, prefill and 32 tokens.")
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option("--max-mb", help="Weights in the model's dtype, 10^6 bytes.")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", help="greedy, beam, contiguous or lowest.")
    ] = "greedy",
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="What plans are chosen by: ablation (greedy and beam), or angular, influence, gradient, "
            "gradient-signed; default: the strategy's own.",
        ),
    ] = None,
    input: Annotated[str, typer.Option("--input", help="What is measured with: speech or text.")] = "speech",
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            help="Which positions the metric counts: all, audio, prompt, text or last; default: its own.",
        ),
    ] = None,
    part: Annotated[
        str, typer.Option("--part", help="layer, or only the attention or mlp of each.")
    ] = "layer",
    width: Annotated[int, typer.Option("--width", min=1, help="Sets that beam keeps at every step.")] = 3,
    allow_last: Annotated[bool, typer.Option("--allow-last", help="The last layer may go too.")] = False,
    patience: Annotated[
        int,
        typer.Option("--patience", min=1, help="Stop after this many plans in a row that break the budget."),
    ] = 2,
    confirm_plans: Annotated[
        int,
        typer.Option("--confirm-plans", min=1, help="Plans tested on unseen clips, the shallowest first."),
    ] = 3,
    task: options.TaskName = "asr",
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="For search.json and plan.json; the same again resumes."),
    ] = Path("search"),
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.BatchSize = 16,
    max_new_tokens: options.MaxNewTokens = None,
    cluster: options.Cluster = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Find the shallowest plan within a budget, and confirm it on clips that the search has not seen."""
    import shoal
    from shoal import tasks
    from shoal.cli.progress import progress_bars
    from shoal.evaluation.measures import headline
    from shoal.evaluation.settings import Resampling, TokenLimit
    from shoal.plan_search.budget import make_budget
    from shoal.plan_search.run import run_search
    from shoal.plan_search.settings import SearchSettings

    headline(tasks.get(task))
    budget = make_budget(
        max_increase=None if max_increase is None else options.parse_share(max_increase, "--max-increase"),
        confidence=confidence,
        point=point,
        max_layers=max_layers,
        max_milliseconds=max_ms,
        max_megabytes=max_mb,
    )
    settings = SearchSettings(
        strategy=strategy,
        metric=metric,
        input=cast("InputKind", input),
        scope=cast("Scope | None", scope),
        part=cast("Part", part),
        width=width,
        allow_last=allow_last,
        patience=patience,
        confirm_plans=confirm_plans,
        batch_size=batch_size,
        limit=TokenLimit(max_new_tokens),
        resampling=Resampling(replicates, cluster=options.parse_cluster(cluster), seed=seed),
    )
    read = partial(
        options.read_data, task=task, limit=limit, where=where, lang=lang, max_bad=max_bad, seed=seed
    )
    dataset, unseen = read(data), read(confirm_data) if confirm_data else None
    loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with progress_bars() as progress:
        found = run_search(
            loaded,
            dataset,
            task,
            confirm_data=unseen,
            budget=budget,
            settings=settings,
            out=out,
            progress=progress,
        )
    typer.echo(found.model_dump_json(indent=1) if json else summary(found, out))
    if found.chosen is None:
        typer.echo(f"shoal: {found.reason}", err=True)
        raise typer.Exit(CHECK_FAILED)


def summary(found: Search, out: Path) -> str:
    """For a person: what was asked, the plans that were tried, the test on unseen clips, the outcome."""
    from shoal.plan_search.words import budget_words

    name = f"{found.score_name} %" if _percent(found) else found.score_name
    lines = [
        f"{found.model.ref}: {found.model.depth} layers, task {found.task}; "
        f"{budget_words(found.budget, found.score_name)}",
        f"{found.validation_clips} clips to choose on, {found.confirmation_clips} to confirm"
        + (f"; speakers in both: {found.shared_speakers}" if found.shared_speakers else ""),
        aligned(
            _named(STEP_HEADINGS, name), [_full_cells(found), *(_step_cells(found, s) for s in found.steps)]
        ),
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


def _percent(found: Search) -> bool:
    from shoal.evaluation.measures import by_name

    return by_name(found.score_name).fraction


def _points(found: Search, score: Estimate) -> str:
    return wording.plain(score, ".1f", scale=100 if _percent(found) else 1)


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
