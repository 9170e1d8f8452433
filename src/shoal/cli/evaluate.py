"""`shoal evaluate`: what does a plan cost in the task's own score?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options
from shoal.cli.table import aligned, with_interval
from shoal.errors import UsageError
from shoal.schema import Delta, MeasuredScore, Plan, Scores, SystemScores

CHECK_FAILED = 4
HEADINGS = ("system", "removed", "WER %", "relative %", "p", "CER %", "ins/del/sub", "cut off")


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As for audit; not needed with --rescore.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="MANIFEST", help="As for audit; not needed with --rescore. Repeatable."
        ),
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option("--plan", metavar="PLAN", help="A plan.json to score too. Repeatable."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Another checkpoint, to be the baseline.")
    ] = None,
    task: options.TaskName = "asr",
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="For scores.json and outputs/; the same again resumes."),
    ] = Path("evaluation"),
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.BatchSize = 16,
    max_new_tokens: options.MaxNewTokens = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option("--group-by", metavar="FIELD", help="Score by this field; default speaker. Repeatable."),
    ] = None,
    max_wer: Annotated[
        str | None, typer.Option("--max-wer", metavar="SHARE", help="Exit with 4 if the WER is higher.")
    ] = None,
    max_wer_increase: Annotated[
        str | None,
        typer.Option(
            "--max-wer-increase", metavar="SHARE", help="Exit with 4 if WER rises more, relative: 25%."
        ),
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score the outputs in --out again, without a model.")
    ] = False,
    cluster: options.Cluster = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Transcribe with the unpruned model and every plan, and score them on the same clips, with intervals."""
    import shoal
    from shoal import tasks
    from shoal.cli.progress import progress_bars
    from shoal.evaluate import rescore as score_again
    from shoal.evaluate.checks import broken_limits
    from shoal.evaluate.quality import headline

    unit = options.parse_cluster(cluster)
    wer_limit, increase_limit = _share(max_wer, "--max-wer"), _share(max_wer_increase, "--max-wer-increase")
    if increase_limit is not None and not (plan or against or rescore):
        raise UsageError(
            "there is nothing to compare with", where="--max-wer-increase", fix="add --plan or --against"
        )
    if rescore:
        scores = score_again(out, group_by=group_by, cluster=unit, replicates=replicates, seed=seed)
    elif model is None:
        raise UsageError(
            "no model given", where="MODEL", fix="name one, or score stored outputs with --rescore"
        )
    else:
        headline(tasks.get(task))
        plans = [Plan.load(path) for path in plan or ()]
        dataset = options.read_data(
            data, task=task, limit=limit, where=where, lang=lang, max_bad=max_bad, seed=seed
        )
        loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        baseline = (
            shoal.load(against, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            if against
            else None
        )
        with progress_bars() as progress:
            scores = shoal.evaluate(
                loaded,
                dataset,
                task,
                plans=plans,
                against=baseline,
                out=out,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                group_by=group_by,
                cluster=unit,
                replicates=replicates,
                seed=seed,
                progress=progress,
            )
    _print(scores, out, as_json=json)
    broken = broken_limits(scores, max_wer=wer_limit, max_wer_increase=increase_limit)
    if broken:
        typer.echo(f"shoal: {'; '.join(broken)}", err=True)
        raise typer.Exit(CHECK_FAILED)


def _share(text: str | None, flag: str) -> float | None:
    return None if text is None else options.parse_share(text, flag)


def _print(scores: Scores, out: Path, *, as_json: bool) -> None:
    typer.echo(scores.model_dump_json(indent=1) if as_json else summary(scores, out))


def summary(scores: Scores, out: Path) -> str:
    """A table for a person: systems down, what the task is scored by across."""
    data = scores.data
    return "\n".join(
        [
            f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}",
            aligned(_headings(scores.systems[0]), [_cells(system) for system in scores.systems]),
            *(worst_groups(scores) if scores.task == "asr" else []),
            f"normaliser {scores.normaliser}, scorer {_scorer(scores)}",
            str(out / "scores.json"),
        ]
    )


def _headings(system: SystemScores) -> list[str]:
    if not system.measures:
        return list(HEADINGS)
    first, *others = (f"{name} %" if score.fraction else name for name, score in system.measures.items())
    return ["system", "removed", first, "relative %", "p", *others, "cut off"]


def _cells(system: SystemScores) -> list[str]:
    if not system.measures:
        return _recognition_cells(system)
    first, *others = system.measures.values()
    cells = [_points(first), *_change(first.delta), *map(_points, others)]
    return [system.name, str(len(system.removed)), *cells, str(system.truncated)]


def _points(score: MeasuredScore) -> str:
    return with_interval(score.value, ".1f", scale=100 if score.fraction else 1)


def _recognition_cells(system: SystemScores) -> list[str]:
    counts = system.word_counts
    return [
        system.name,
        str(len(system.removed)),
        with_interval(system.wer, ".1f", scale=100),
        *_change(system.delta_wer),
        with_interval(system.cer, ".1f", scale=100),
        f"{counts.insertions}/{counts.deletions}/{counts.substitutions}",
        str(system.truncated),
    ]


def _change(delta: Delta | None) -> list[str]:
    """Relative difference and p-value."""
    relative = delta.relative if delta else None
    p_value = delta.p_value if delta else None
    return [
        "" if relative is None else with_interval(relative, "+.1f", scale=100),
        "" if p_value is None else f"{p_value:.3f}",
    ]


def _scorer(scores: Scores) -> str:
    measures = scores.systems[0].measures
    signed = [f"{name} {score.signature}" for name, score in measures.items()]
    return "; ".join(signed) or scores.scorer


def worst_groups(scores: Scores) -> list[str]:
    """One line for every field and system: the group that fares worst."""
    return [
        f"worst {field} of {system.name}: {value},"
        f" WER {with_interval(system.groups[field][value].wer, '.1f', scale=100)} %,"
        f" {system.groups[field][value].clips} clips"
        for system in scores.systems
        for field, value in system.worst_group.items()
    ]
