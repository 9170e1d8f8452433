"""`shoal evaluate`: what does a plan cost in the task's own score?"""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import options, shards
from shoal.cli.card import warn_if_unheard
from shoal.cli.evaluation_tables import summary
from shoal.errors import UsageError
from shoal.schema import Plan, Scores

CHECK_FAILED = 4


def evaluate(
    context: typer.Context,
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
    asr: Annotated[
        str | None,
        typer.Option(
            "--asr", metavar="MODEL", help="With --task tts: speak, and score what this model hears."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="For scores.json and outputs/; the same again resumes."),
    ] = Path("evaluation"),
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.DecodeBatchSize = 16,
    max_new_tokens: options.MaxNewTokens = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option("--group-by", metavar="FIELD", help="Score by this field; default speaker. Repeatable."),
    ] = None,
    out_of_domain: Annotated[
        list[str] | None,
        typer.Option("--out-of-domain", metavar="SET", help="A data set to mark and pool so. Repeatable."),
    ] = None,
    comet: Annotated[
        str | None,
        typer.Option(
            "--comet", metavar="MODEL", help="Score translations by COMET too, in SHOAL_COMET_PYTHON."
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export", metavar="FORMAT", help="lm-eval, nemo or trn, into DIR/exports. Repeatable."
        ),
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
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="K/N", help="Decode only part K of N, for the run without --shard to score."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Decode in so many processes on this machine.")
    ] = None,
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
    from shoal.evaluate import evaluate_shard
    from shoal.evaluate import rescore as score_again
    from shoal.evaluate.checks import broken_limits
    from shoal.evaluate.quality import headline
    from shoal.evaluate.settings import Extras
    from shoal.evaluate.shards import Shard
    from shoal.evaluate.spoken import check_spoken, spoken_by

    part = None if shard is None else Shard.parse(shard)
    if part and (rescore or workers or max_wer or max_wer_increase):
        raise UsageError(
            "a part of the clips is decoded and not scored",
            where="--shard",
            fix="give --rescore, --workers and --max-… without it",
        )
    unit = options.parse_cluster(cluster)
    wer_limit, increase_limit = _share(max_wer, "--max-wer"), _share(max_wer_increase, "--max-wer-increase")
    if increase_limit is not None and not (plan or against or rescore):
        raise UsageError(
            "there is nothing to compare with", where="--max-wer-increase", fix="add --plan or --against"
        )
    if rescore:
        scores = score_again(
            out,
            group_by=group_by,
            out_of_domain=out_of_domain or (),
            comet=comet,
            exports=export or (),
            cluster=unit,
            replicates=replicates,
            seed=seed,
        )
    elif model is None:
        raise UsageError(
            "no model given", where="MODEL", fix="name one, or score stored outputs with --rescore"
        )
    else:
        asked = tasks.get(task)
        headline(asked)
        if asr is not None:
            check_spoken(asked)
        Extras(out_of_domain or (), comet, export or ()).scorer(asked, out)
        plans = [Plan.load(path) for path in plan or ()]
        if workers:
            shards.run_workers(context, workers)
        elif part:
            shards.end_with_parent()
        with progress_bars() as progress:
            dataset = options.read_data(
                data,
                task=task,
                limit=limit,
                where=where,
                lang=lang,
                max_bad=max_bad,
                seed=seed,
                progress=progress,
            )
        loaded = shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        baseline = (
            shoal.load(against, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            if against
            else None
        )
        if asr is not None:
            heard = shoal.load(asr, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            asked = spoken_by(asked, heard)
        if part:
            with progress_bars() as progress:
                done = evaluate_shard(
                    loaded,
                    dataset,
                    asked,
                    shard=(part.number, part.of),
                    out=out,
                    plans=plans,
                    against=baseline,
                    batch_size=batch_size,
                    max_new_tokens=max_new_tokens,
                    progress=progress,
                )
            typer.echo(dumps(shards.as_json(done)) if json else shards.as_text(done))
            return
        with progress_bars() as progress:
            scores = shoal.evaluate(
                loaded,
                dataset,
                asked,
                plans=plans,
                against=baseline,
                out=out,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                group_by=group_by,
                out_of_domain=out_of_domain or (),
                comet=comet,
                exports=export or (),
                cluster=unit,
                replicates=replicates,
                seed=seed,
                progress=progress,
            )
    _print(scores, out, as_json=json)
    warn_if_unheard([scores], model)
    broken = broken_limits(scores, max_wer=wer_limit, max_wer_increase=increase_limit)
    if broken:
        typer.echo(f"shoal: {'; '.join(broken)}", err=True)
        raise typer.Exit(CHECK_FAILED)


def _share(text: str | None, flag: str) -> float | None:
    return None if text is None else options.parse_share(text, flag)


def _print(scores: Scores, out: Path, *, as_json: bool) -> None:
    typer.echo(scores.model_dump_json(indent=1) if as_json else summary(scores, out))
