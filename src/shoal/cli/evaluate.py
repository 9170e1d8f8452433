"""`shoal evaluate`: what does a plan cost in the task's own score?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

import shoal
from shoal.cli import options, shards, validate
from shoal.cli.card import warn_if_unheard
from shoal.cli.evaluation_tables import advice, summary
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings
from shoal.errors import UsageError
from shoal.evaluation.settings import AnswerSettings, EvaluateSettings, ScoringSettings
from shoal.models.settings import ModelSettings
from shoal.settings import DATA, MODEL, OUTPUT, SPEED, option_name
from shoal.validation.settings import ScoreRequirements

if TYPE_CHECKING:
    from shoal.evaluation.shards import ShardOutputs
    from shoal.progress import Progress
    from shoal.schema import Scores, Validation
    from shoal.tasks import Task


class EvaluateFiles(ScoreRequirements):
    """What is evaluated, in which parts, and where results go; exit code 4 if a requirement does not hold."""

    plan: options.Plans = ()
    against: Annotated[str | None, MODEL, Parameter(metavar="MODEL")] = None
    """Checkpoint to be the baseline, instead of the unpruned model."""
    asr: Annotated[str | None, MODEL, Parameter(metavar="MODEL")] = None
    """Recogniser for --task tts: it transcribes what the model speaks, and that is scored."""
    data: Annotated[
        tuple[str, ...],
        DATA,
        Parameter(
            metavar="MANIFEST",
            help="Clips: a manifest (NeMo JSONL), a folder of audio and .txt files, or hf:NAME; not needed with "
            "--rescore. Repeatable.",
        ),
    ] = ()
    task: options.TaskName = "asr"
    rescore: bool = False
    """Score the stored outputs of --out again, without a model."""
    shard: Annotated[str | None, SPEED, Parameter(metavar="K/N")] = None
    """Part of the clips to decode, such as 3/16; the same command without --shard scores all parts."""
    workers: Annotated[int | None, SPEED] = Field(default=None, ge=1)
    """Number of processes on this machine to decode in."""
    out: Annotated[Path, OUTPUT] = Path("evaluation")
    """Folder for scores.json and outputs/; the same command again resumes."""

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: something does not.
        """
        requirements = self.listed()
        if self.shard is not None:
            from shoal.evaluation.shards import Shard

            Shard.parse(self.shard)
            if self.rescore or self.workers or requirements:
                raise UsageError(
                    "a part of the clips is decoded and not scored",
                    where="--shard",
                    fix="give --rescore, --workers and requirements without it",
                )
        if self.rescore:
            shoal.Scores.load(self.out / "scores.json")
        if self.plan or self.against or self.rescore:
            return
        for name in ("max_wer_increase", "max_group_increase", "max_bleu_drop"):
            if getattr(self, name) is not None:
                raise UsageError(
                    "there is nothing to compare with",
                    where=option_name(type(self), [name]),
                    fix="add --plan or --against",
                )

    def judged(self, scores: Scores) -> Validation | None:
        """The verdict on what is required; None if nothing is."""
        from shoal.validation.validate import validate

        requirements = self.listed()
        return validate(requirements, [scores], confident=self.confident) if requirements else None


@options.command
def evaluate(
    model: Annotated[
        str | None, MODEL, Parameter(help="A folder, a Hugging Face Hub id or pkg:NAME; not needed with --rescore.")
    ] = None,
    /,
    *,
    files: Annotated[EvaluateFiles, options.Flat] = EvaluateFiles(),
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[EvaluateSettings, options.Flat] = EvaluateSettings(),
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> int:
    """Score the unpruned model and every plan at a task, on the same clips, with confidence intervals."""
    files.check()
    if files.rescore:
        from shoal.evaluation import rescore

        scores = rescore(files.out, settings.narrowed_to(ScoringSettings))
    elif model is None:
        raise UsageError("no model given", where="MODEL", fix="name one, or score stored outputs with --rescore")
    else:
        with printing.progress(files.out) as progress:
            result = _evaluated(model, files, rows, loading, settings, progress)
        if not isinstance(result, shoal.Scores):
            printing.show(shards.record(result), shards.summary(result), *result.files)
            return 0
        scores = result
    validation = files.judged(scores)
    verdict = [] if validation is None else validate.summary(validation)
    printing.show(
        scores, [*summary(scores, settings.group_by or ()), *verdict, *advice(scores)], files.out / "scores.json"
    )
    warn_if_unheard([scores], model)
    return 0 if validation is None else validate.exit_code(validation)


def _evaluated(
    model: str,
    files: EvaluateFiles,
    rows: DataSettings,
    loading: ModelSettings,
    settings: EvaluateSettings,
    progress: Progress,
) -> Scores | ShardOutputs:
    """Decode and score, or decode a part."""
    from shoal.evaluation.groups import check_groups

    plans = [shoal.Plan.load(path) for path in files.plan]
    task = _asked(files, settings)
    if files.workers:
        shards.run_workers(model, [files, rows, settings], loading, files.workers)
    elif files.shard:
        shards.end_with_parent()
    data = options.read_data([*files.data], rows, files.task, settings.seed, progress)
    if files.shard is None:
        check_groups(settings, data.rows)
    loaded = options.load(model, loading, progress, [plan.check_depth for plan in plans])
    if files.asr is not None:
        from shoal.evaluation.generated_speech import with_recogniser

        task = with_recogniser(task, options.load(files.asr, loading, progress))
    against = None if files.against is None else options.load(files.against, loading, progress)
    if files.shard is None:
        return shoal.evaluate(
            loaded, data, task, settings, plans=plans, against=against, out=files.out, progress=progress
        )
    from shoal.evaluation import evaluate_shard
    from shoal.evaluation.shards import Shard

    part = Shard.parse(files.shard)
    return evaluate_shard(
        loaded,
        data,
        task,
        settings.narrowed_to(AnswerSettings),
        shard=(part.number, part.of),
        plans=plans,
        against=against,
        out=files.out,
        progress=progress,
    )


def _asked(files: EvaluateFiles, settings: EvaluateSettings) -> Task:
    """The task; everything that can be refused before a model is loaded is refused here."""
    from shoal import tasks
    from shoal.evaluation.controls import check_hears
    from shoal.evaluation.scores.registry import headline

    task = tasks.get(files.task)
    headline(task)
    if settings.controls:
        check_hears(task)
    if files.asr is not None:
        from shoal.evaluation.generated_speech import check_answers_in_speech

        check_answers_in_speech(task)
    settings.scorer(task, files.out)
    return task
