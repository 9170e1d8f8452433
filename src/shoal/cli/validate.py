"""`shoal validate`: does a checkpoint meet what is required of it? Made for builds that must stop if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from shoal.cli import typer_options as options
from shoal.cli.card import is_folder, warn_if_unheard
from shoal.cli.evaluating import Evaluation
from shoal.cli.table import aligned
from shoal.errors import UsageError

if TYPE_CHECKING:
    from shoal.cards.attached import Labelled
    from shoal.cards.identity import Fingerprint
    from shoal.schema import Scores
    from shoal.validation.requirements import Requirement
    from shoal.validation.validate import Validation

REQUIREMENT_BROKEN = 4
Limit = str | None
Given = TypeVar("Given")


def validate(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            metavar="CHECKPOINT", help="A folder, Hub id or pkg:NAME; not needed with --scores or --bench."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="MANIFEST", help="Evaluate on these clips first. Repeatable."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="With --data: the baseline.")
    ] = None,
    scores: Annotated[
        list[Path] | None, typer.Option("--scores", metavar="FILE", help="A scores.json. Repeatable.")
    ] = None,
    bench: Annotated[
        list[Path] | None, typer.Option("--bench", metavar="FILE", help="A bench.json. Repeatable.")
    ] = None,
    max_wer: Annotated[Limit, typer.Option("--max-wer", metavar="SHARE", help="Highest WER: 10%.")] = None,
    max_wer_increase: Annotated[
        Limit,
        typer.Option("--max-wer-increase", metavar="SHARE", help="Highest increase of WER, relative: 5%."),
    ] = None,
    max_group_increase: Annotated[
        Limit,
        typer.Option(
            "--max-group-increase", metavar="SHARE", help="The same for every group of clips that was scored."
        ),
    ] = None,
    min_bleu: Annotated[Limit, typer.Option("--min-bleu", metavar="BLEU", help="Lowest BLEU: 25.")] = None,
    max_bleu_drop: Annotated[
        Limit,
        typer.Option("--max-bleu-drop", metavar="DROP", help="In points, 1.5; or relative, 5%."),
    ] = None,
    min_chrf: Annotated[Limit, typer.Option("--min-chrf", metavar="CHRF", help="Lowest chrF: 50.")] = None,
    min_accuracy: Annotated[
        Limit, typer.Option("--min-accuracy", metavar="SHARE", help="Lowest accuracy: 80%.")
    ] = None,
    min_uar: Annotated[
        Limit, typer.Option("--min-uar", metavar="SHARE", help="Lowest unweighted average recall: 60%.")
    ] = None,
    max_latency_ratio: Annotated[
        float | None,
        typer.Option("--max-latency-ratio", min=0, help="Time over the unpruned model's, with --bench: 0.8."),
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option("--min-speedup", min=0, help="Times faster, with --bench: 1.25.")
    ] = None,
    max_size: Annotated[
        Limit, typer.Option("--max-size", metavar="BYTES", help="Of the weights: 300MB.")
    ] = None,
    require_task: Annotated[
        list[str] | None,
        typer.Option("--require-task", metavar="TASK", help="There must be a result for it. Repeatable."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="REQUIREMENT", help='"macro-F1>=0.5", "CER drop<=2%" … Repeatable.'
        ),
    ] = None,
    confident: Annotated[
        bool,
        typer.Option(
            "--confident/--point",
            help="The bound of the interval must meet a requirement, too; or the point value is enough.",
        ),
    ] = True,
    task: options.TaskName = "asr",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="With --data: as for evaluate; resumes.")
    ] = Path("evaluation"),
    attach: Annotated[
        bool, typer.Option("--attach", help="Copy what was given or measured to CHECKPOINT/validation.")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML for a build server.")
    ] = None,
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    batch_size: options.DecodeBatchSize = 16,
    max_new_tokens: options.MaxNewTokens = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option("--group-by", metavar="FIELD", help="As for evaluate. Repeatable."),
    ] = None,
    cluster: options.Cluster = "utterance",
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Judge what is required of a checkpoint; exit with 4 unless every requirement was measured and holds.

    Files in CHECKPOINT/validation count without being named (see shoal card --attach).
    """
    from shoal.cards.attached import attach as keep
    from shoal.cards.attached import read
    from shoal.validation.junit import write_junit
    from shoal.validation.validate import validate as judge

    requirements = [
        *_numbers(max_latency_ratio, min_speedup),
        *_texts(
            max_wer,
            max_wer_increase,
            max_group_increase,
            [("BLEU", min_bleu), ("chrF", min_chrf), ("accuracy", min_accuracy), ("UAR", min_uar)],
            max_bleu_drop,
            max_size,
        ),
        *_named(require_task, require),
    ]
    _check(checkpoint, data, against, [*(scores or ()), *(bench or ())], requirements, attach)
    options.parse_cluster(cluster)
    given: list[Labelled] = [read(path) for path in (*(scores or ()), *(bench or ()))]
    own: Fingerprint | None = None
    if data and checkpoint is not None:
        found = Evaluation(
            model=checkpoint,
            data=data,
            against=against,
            task=task,
            out=out,
            limit=limit,
            where=where,
            lang=lang,
            max_bad=max_bad,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            group_by=group_by,
            cluster=cluster,
            replicates=replicates,
            seed=seed,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        ).carry_out()
        assert found is not None  # only a part of the clips has no scores
        given.append((str(out / "scores.json"), found))
        own = _known(found, checkpoint, device, trust_remote_code)
    validation = judge(
        requirements,
        given,
        checkpoint=checkpoint,
        confident=confident,
        fingerprint=own,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    if attach and checkpoint is not None:
        keep(Path(checkpoint).expanduser(), [document for _, document in given])
    if junit is not None:
        write_junit(validation, junit)
    typer.echo(validation.model_dump_json(indent=1) if json else summary(validation))
    warn_if_unheard([document for _, document in given], checkpoint)
    if not validation.holds:
        failed = "; ".join(
            f"{each.requirement}: {each.verdict} ({each.reason})" for each in validation.failures
        )
        typer.echo(f"shoal: {failed}", err=True)
        raise typer.Exit(REQUIREMENT_BROKEN)


def summary(validation: Validation) -> str:
    """A table for a person: requirements down; what was measured, and the verdict."""
    rows = [
        [each.requirement, each.shown or "-", each.verdict, each.where or each.reason]
        for each in validation.findings
    ]
    judged = "by the bound of each interval" if validation.confident else "by point values"
    name = validation.checkpoint or "given results"
    headings = ["requirement", "measured", "verdict", "where"]
    return "\n".join([f"{name}, judged {judged}", aligned(headings, rows)])


def _check(
    checkpoint: str | None,
    data: Sequence[str] | None,
    against: str | None,
    files: Sequence[Path],
    requirements: Sequence[Requirement],
    attach: bool,
) -> None:
    if not requirements:
        raise UsageError("nothing is required", fix='give --max-wer-increase 5%, --require "UAR>=0.6" …')
    if checkpoint is None and not files:
        raise UsageError("nothing to judge", where="CHECKPOINT", fix="name one, or give --scores or --bench")
    if data and checkpoint is None:
        raise UsageError("no model to evaluate", where="--data", fix="name the checkpoint first")
    if against and not data:
        raise UsageError("there are no clips to compare on", where="--against", fix="add --data")
    if attach and (checkpoint is None or not is_folder(checkpoint)):
        raise UsageError("there is no folder to copy to", where="--attach", fix="name a checkpoint's folder")


def _numbers(max_latency_ratio: float | None, min_speedup: float | None) -> list[Requirement]:
    from shoal.validation import requirement_syntax as forms

    return [
        *_made(forms.max_latency_ratio, max_latency_ratio),
        *_made(forms.min_speedup, min_speedup),
    ]


def _texts(
    max_wer: Limit,
    max_wer_increase: Limit,
    max_group_increase: Limit,
    lowest: Sequence[tuple[str, Limit]],
    max_bleu_drop: Limit,
    max_size: Limit,
) -> list[Requirement]:
    from shoal.validation import requirement_syntax as forms

    shares: list[tuple[Callable[[float], Requirement], str, Limit]] = [
        (forms.max_wer, "--max-wer", max_wer),
        (forms.max_wer_increase, "--max-wer-increase", max_wer_increase),
        (forms.max_group_increase, "--max-group-increase", max_group_increase),
    ]
    return [
        *(make(options.parse_share(text, flag)) for make, flag, text in shares if text is not None),
        *(forms.at_least(score, text) for score, text in lowest if text is not None),
        *_made(lambda text: forms.max_drop("BLEU", text), max_bleu_drop),
        *_made(forms.max_size, max_size),
    ]


def _named(tasks: Sequence[str] | None, required: Sequence[str] | None) -> list[Requirement]:
    from shoal.validation import requirement_syntax as forms

    return [
        *(forms.require_task(name) for name in tasks or ()),
        *(forms.parse(text) for text in required or ()),
    ]


def _made(make: Callable[[Given], Requirement], given: Given | None) -> list[Requirement]:
    return [] if given is None else [make(given)]


def _known(found: Scores, checkpoint: str, device: str, trust_remote_code: bool) -> Fingerprint:
    """The fingerprint in the dtype that was just loaded; in others the checkpoint is loaded again."""
    from shoal.cards.identity import fingerprints_of

    other = fingerprints_of(checkpoint, device=device, trust_remote_code=trust_remote_code)
    return lambda dtype: found.model.fingerprint if dtype == found.provenance.dtype else other(dtype)
