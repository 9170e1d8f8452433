"""`shoal evaluate`: what does a plan cost in the task's own score?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import typer_options as options
from shoal.cli.card import warn_if_unheard
from shoal.cli.evaluating import Evaluation
from shoal.cli.evaluation_tables import summary

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
    given = {name: value for name, value in locals().items() if name != "context"}
    asked = Evaluation(**given)
    scores = asked.carry_out(context)
    if scores is None:
        return
    typer.echo(scores.model_dump_json(indent=1) if json else summary(scores, out))
    warn_if_unheard([scores], model)
    if broken := asked.broken(scores):
        typer.echo(f"shoal: {'; '.join(broken)}", err=True)
        raise typer.Exit(CHECK_FAILED)
