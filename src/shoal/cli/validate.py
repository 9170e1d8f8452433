"""`shoal validate`: does a checkpoint meet what is required of it? Made for builds that must stop if not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.card import is_folder, warn_if_unheard
from shoal.cli.printing import TablePrinting
from shoal.data.settings import DataSettings
from shoal.errors import UsageError
from shoal.evaluation.settings import DecodingSettings
from shoal.models.settings import ModelSettings
from shoal.settings import DATA, MODEL, OUTPUT, Intervals
from shoal.tables import Table
from shoal.validation.settings import ValidateSettings

if TYPE_CHECKING:
    from shoal.cards.identity import Fingerprint
    from shoal.progress import Progress
    from shoal.schema import Scores, Validation


class Evaluation(DecodingSettings, Intervals):
    """How the checkpoint is evaluated first, where clips are given."""

    data: Annotated[tuple[str, ...], DATA, Parameter(metavar="MANIFEST")] = ()
    """Clips to evaluate the checkpoint on first, as for shoal evaluate. Repeatable."""
    task: options.TaskName = "asr"
    against: Annotated[str | None, MODEL, Parameter(metavar="MODEL")] = None
    """Checkpoint to evaluate on the same clips as the baseline."""
    group_by: Annotated[tuple[str, ...] | None, DATA, Parameter(metavar="FIELD")] = None
    """Field of the manifest whose groups are scored apart; default: the speaker. Repeatable."""
    out: Annotated[Path, OUTPUT, Parameter(metavar="DIR")] = Path("evaluation")
    """Folder for scores.json and outputs/ of that evaluation; the same again resumes."""


@options.command
def validate(
    checkpoint: Annotated[
        str | None,
        MODEL,
        Parameter(name="CHECKPOINT", help="Checkpoint to check; not needed with --scores or --bench."),
    ] = None,
    /,
    *,
    scores: options.Scores = (),
    bench: options.Benches = (),
    evaluation: Annotated[Evaluation, options.Flat] = Evaluation(),
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[ValidateSettings, options.Flat] = ValidateSettings(),
    attach: Annotated[
        bool, OUTPUT, Parameter(help="Copy what was given or measured to CHECKPOINT/validation.")
    ] = False,
    junit: Annotated[
        Path | None, OUTPUT, Parameter(metavar="FILE", help="JUnit XML file to write for a build server.")
    ] = None,
    printing: Annotated[TablePrinting, options.Flat] = TablePrinting(),
) -> int:
    """Check what you require of a checkpoint; exit with 4 unless all of it was measured and holds.

    Files in CHECKPOINT/validation are used without being named (see shoal card --attach).
    """
    from shoal.cards.attached import attach as keep
    from shoal.cards.attached import read
    from shoal.validation.junit import write_junit
    from shoal.validation.validate import validate as judge

    if not settings.listed():
        raise UsageError("nothing is required", fix='give --max-wer-increase 5%, --require "UAR>=0.6" …')
    _check(checkpoint, evaluation, [*scores, *bench], attach)
    documents = [read(path) for path in (*scores, *bench)]
    own: Fingerprint | None = None
    if evaluation.data and checkpoint is not None:
        with printing.progress(evaluation.out) as progress:
            measured = _evaluated(checkpoint, evaluation, rows, loading, progress)
        documents.append((str(evaluation.out / "scores.json"), measured))
        own = _known(measured, checkpoint, loading)
    validation = judge(
        (),
        documents,
        settings,
        checkpoint=checkpoint,
        fingerprint=own,
        device=loading.device,
        trust_remote_code=loading.trust_remote_code,
    )
    if attach and checkpoint is not None:
        keep(Path(checkpoint).expanduser(), [document for _, document in documents])
    if junit is not None:
        write_junit(validation, junit)
    written = [evaluation.out / "scores.json"] if evaluation.data else []
    printing.show(validation, [*summary(validation), *advice(validation)], *written, *([junit] if junit else []))
    warn_if_unheard([document for _, document in documents], checkpoint)
    return exit_code(validation)


def advice(validation: Validation) -> list[str]:
    """What to do about requirements that do not hold."""
    verdicts = {finding.verdict for finding in validation.failures}
    steps = {
        "broken": "remove fewer layers, or heal: shoal heal",
        "cannot tell": "evaluate more clips, which narrows the interval, or judge the value alone with --point",
        "not measured": "measure it: shoal evaluate --against MODEL, or shoal bench --plan PLAN",
    }
    return [f"next, where {verdict}: {step}" for verdict, step in steps.items() if verdict in verdicts]


def exit_code(validation: Validation) -> int:
    """0 if all holds; else what does not goes to stderr."""
    if validation.holds:
        return 0
    failed = (f"{finding.requirement}: {finding.verdict} ({finding.reason})" for finding in validation.failures)
    print(f"shoal: {'; '.join(failed)}", file=sys.stderr)
    return options.CHECK_FAILED


def summary(validation: Validation) -> list[str | Table]:
    """A table for a person: requirements down; what was measured, and the verdict."""
    rows = [
        [finding.requirement, finding.shown or "-", finding.verdict, finding.where or finding.reason]
        for finding in validation.findings
    ]
    judged = "by the bound of each interval" if validation.confident else "by point values"
    table = Table(["requirement", "measured", "verdict", "where"], rows)
    count = len(validation.findings) - len(validation.failures)
    verdict = "all requirements hold" if validation.holds else f"{count} of {len(validation.findings)} hold"
    return [f"{validation.checkpoint or 'these results'}, judged {judged}: {verdict}", table]


def _check(checkpoint: str | None, evaluation: Evaluation, files: Sequence[Path], attach: bool) -> None:
    if checkpoint is None and not files:
        raise UsageError("nothing to judge", where="CHECKPOINT", fix="name one, or give --scores or --bench")
    if evaluation.data and checkpoint is None:
        raise UsageError("no model to evaluate", where="--data", fix="name the checkpoint first")
    if evaluation.against and not evaluation.data:
        raise UsageError("there are no clips to compare on", where="--against", fix="add --data")
    if attach and (checkpoint is None or not is_folder(checkpoint)):
        raise UsageError("there is no folder to copy to", where="--attach", fix="name a checkpoint's folder")


def _evaluated(
    checkpoint: str, evaluation: Evaluation, rows: DataSettings, loading: ModelSettings, progress: Progress
) -> Scores:
    """The scores of the checkpoint and of what it is compared with, on the given clips."""
    dataset = options.read_data([*evaluation.data], rows, evaluation.task, evaluation.seed, progress)
    loaded = options.load(checkpoint, loading, progress)
    against = None if evaluation.against is None else options.load(evaluation.against, loading, progress)
    decoding = evaluation.model_dump(exclude={"data", "task", "against"})
    return shoal.evaluate(loaded, dataset, evaluation.task, against=against, progress=progress, **decoding)


def _known(measured: Scores, checkpoint: str, loading: ModelSettings) -> Fingerprint:
    """The fingerprint in the dtype that was just loaded; in others the checkpoint is loaded again."""
    from shoal.cards.identity import fingerprints_of

    other = fingerprints_of(checkpoint, device=loading.device, trust_remote_code=loading.trust_remote_code)
    return lambda dtype: measured.model.fingerprint if dtype == measured.provenance.dtype else other(dtype)
