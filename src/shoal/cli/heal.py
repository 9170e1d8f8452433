"""`shoal heal`: train a little after pruning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

import shoal
from shoal.cli import options
from shoal.cli.card import warn_of_speech
from shoal.cli.printing import Printing
from shoal.cli.prune import checks
from shoal.data.settings import DataSettings, Fields
from shoal.healing.settings import HealSettings
from shoal.models.settings import ModelSettings
from shoal.settings import DATA, MODEL, OUTPUT, Settings
from shoal.wording import fitted_on, plural

if TYPE_CHECKING:
    from shoal.schema import HealRecord


class ValidationClips(Settings):
    """Which clips the loss is watched on."""

    validation: Annotated[tuple[str, ...], DATA, Parameter(metavar="MANIFEST")] = ()
    """Clips to watch the loss on, given as for --data; default: 5% of --data. Repeatable."""
    validation_limit: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Number of clips to watch the loss on, evenly spaced; default: --limit."""
    validation_where: Annotated[Fields, DATA] = Field(default={})
    """Watch only rows whose field has this value; default: --where. Repeatable."""


@options.command
def heal(
    model: Annotated[
        str, MODEL, Parameter(name="PRUNED", help="Checkpoint folder from shoal prune, or with --plan any model.")
    ],
    /,
    *,
    data: options.Data,
    watched: Annotated[ValidationClips, options.Flat] = ValidationClips(),
    task: options.TaskName = "asr",
    rows: Annotated[DataSettings, options.Flat] = DataSettings(),
    plan: Annotated[Path | None, MODEL, Parameter(metavar="FILE", help="Plan to prune the model by first.")] = None,
    loading: Annotated[ModelSettings, options.Flat] = ModelSettings(),
    settings: Annotated[HealSettings, options.Flat] = HealSettings(),
    out: Annotated[Path, OUTPUT, Parameter(metavar="DIR", help="Checkpoint folder to make.")],
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Train a pruned model a little, or compute weights for it, and write it, verified.

    The same command again goes on where it was interrupted.
    """
    from shoal import tasks
    from shoal.cards.spoken_answers import speech_untested
    from shoal.healing.job import HealingJob

    settings = settings.model_copy(update={"trust_remote_code": loading.trust_remote_code})
    removed = None if plan is None else shoal.Plan.load(plan)
    with printing.progress(out) as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        validation = options.read_other(
            "--validation",
            watched.validation,
            rows,
            watched.validation_limit,
            watched.validation_where,
            task,
            settings.seed,
            progress,
        )
        HealingJob(dataset, tasks.get(task), settings, removed, validation, out).check(Path(model))
        loaded = options.load(model, loading, progress, [removed.check_depth] if removed else [])
        healed = shoal.heal(
            loaded, dataset, task, settings, plan=removed, validation=validation, out=out, progress=progress
        )
    if healed.folder is not None:
        if healed.finished_before:
            progress.say("nothing left to do: this checkpoint is healed")
        printing.show(healed.record, [*summary(healed.record), *checks(healed.folder)], out)
        if speech_untested(healed.record.model, folder=out):
            warn_of_speech(str(out))


def summary(record: HealRecord) -> list[str]:
    """A few lines for a person."""
    lines = [
        f"healed {record.model.ref} by {record.target}: {plural(record.trained_parameters, 'parameter')} fitted on "
        f"{fitted_on(record.fitted_clips, record.fitted_positions)}; "
        + (f"{plural(record.steps, 'step')}, {plural(record.clips, 'clip')} seen, " if record.steps else "")
        + f"{record.seconds:.0f} s"
    ]
    if record.loss_before is not None and record.loss_after is not None:
        clips = plural(record.loss_clips, "clip") if record.loss_clips else "clips"
        lines.append(
            f"loss on {clips} not trained on: {record.loss_before:.3f} to {record.loss_after:.3f} nats a token"
        )
    return [*lines, *record.notes]
