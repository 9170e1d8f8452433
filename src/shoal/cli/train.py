"""`shoal train`: build a SpeechLLM by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.settings import DATA, OUTPUT
from shoal.training.settings import TrainSettings

if TYPE_CHECKING:
    from shoal.schema import TrainingRecord


@options.command
def train(
    recipe: Annotated[Path, DATA, Parameter(name="RECIPE", help="YAML file of what to build, on which data, and how.")],
    /,
    *,
    settings: Annotated[TrainSettings, options.Flat] = TrainSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="Folder of adapters to make.")],
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Build a SpeechLLM from an encoder and an LLM, as a recipe says, and train it.

    The same command again goes on where it was interrupted. `accelerate launch -m shoal train …` takes several GPUs.
    """
    from shoal.training.recipe import Recipe
    from shoal.training.run import finished

    steps = Recipe.load(recipe)
    done = finished(steps, out, force=settings.force) is not None
    with printing.progress(out) as progress:
        record = shoal.train(steps, out, settings, progress=progress)
    if record is not None:
        if done:
            progress.say("nothing left to do: this recipe is carried out")
        printing.show(record, summary(record), out)


def summary(record: TrainingRecord) -> list[str]:
    """A few lines for a person."""
    lines = [
        f"{stage.name}: {stage.steps} steps, {stage.clips} clips, {stage.seconds:.0f} s, "
        f"{stage.trained_parameters:,} parameters, loss {stage.first_loss:.3f} to {stage.last_loss:.3f} nats a token"
        for stage in record.stages
    ]
    lines += [
        f"held out {loss.data} ({loss.task}, {loss.clips} clips): {loss.loss:.3f} nats a token"
        + ("" if loss.loss_as_saved is None else f", {loss.loss_as_saved:.3f} as saved")
        for loss in record.validation
    ]
    return [*lines, *record.notes]
