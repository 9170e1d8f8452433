"""`shoal heal`: train a little after pruning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.card import warn_of_speech
from shoal.cli.printing import Printing
from shoal.cli.prune import checks
from shoal.data.settings import DataSettings
from shoal.healing.settings import HealSettings
from shoal.models.settings import ModelSettings
from shoal.settings import DATA, MODEL, OUTPUT
from shoal.wording import fitted_on, plural

if TYPE_CHECKING:
    from shoal.schema import HealRecord


@options.command
def heal(
    model: Annotated[
        str, MODEL, Parameter(name="PRUNED", help="Checkpoint folder from shoal prune, or with --plan any model.")
    ],
    /,
    *,
    data: options.Data,
    validation: Annotated[
        list[str] | None,
        DATA,
        Parameter(metavar="MANIFEST", help="Clips to watch the loss on; default: 5% of --data. Repeatable."),
    ] = None,
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
    with printing.progress() as progress:
        dataset = options.read_data(data, rows, task, settings.seed, progress)
        every = rows.model_copy(update={"limit": None})
        watched = options.read_data(validation, every, task, settings.seed) if validation else None
        HealingJob(dataset, tasks.get(task), settings, removed, watched, out).check(Path(model))
        loaded = options.load(model, loading, progress)
        healed = shoal.heal(
            loaded, dataset, task, settings, plan=removed, validation=watched, out=out, progress=progress
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
