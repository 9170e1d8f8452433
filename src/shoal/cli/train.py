"""`shoal train`: build a SpeechLLM by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import training
from shoal.cli import typer_options as options
from shoal.schema import TrainingRecord


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to build and on which data.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of adapters to make.")],
    data_root: Annotated[
        Path, typer.Option("--data-root", metavar="DIR", help="What the recipe's manifests are relative to.")
    ] = Path(),
    device: options.Device = "cpu",
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="Of the frozen weights: auto (float32), float32, bfloat16, float16."),
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace DIR if there is something already.")
    ] = False,
    max_positions: training.MaxPositions = 16_384,
    workers: training.Workers = 0,
    save_every: training.SaveEvery = None,
    report_to: training.ReportTo = None,
    precision: training.Precision = "no",
    features: training.Features = None,
    gradient_checkpointing: training.Checkpointing = False,
    json: options.Json = False,
) -> None:
    """Build a SpeechLLM and train it; the same command again goes on. `accelerate launch -m shoal train …` for more."""
    import shoal
    from shoal.cli.progress import progress_bars
    from shoal.training.recipe import Recipe

    found = Recipe.load(recipe)
    how = training.how_to(
        max_positions=max_positions,
        workers=workers,
        save_every=save_every,
        report_to=report_to,
        precision=precision,
        features=features,
        gradient_checkpointing=gradient_checkpointing,
        run_name=f"shoal-train-{out.name}",
    )
    with progress_bars() as progress:
        record = shoal.train(
            found,
            out,
            data_root=data_root,
            device=training.own_device(device),
            dtype=dtype,
            force=force,
            how=how,
            progress=progress,
        )
    if record is not None:
        typer.echo(record.model_dump_json(indent=1) if json else summary(record, out))


def summary(record: TrainingRecord, out: Path) -> str:
    """A few lines for a person."""
    lines = [
        f"{each.name}: {each.steps} steps, {each.clips} clips, {each.seconds:.0f} s, {each.trained_parameters:,} "
        f"parameters, loss {each.first_loss:.3f} to {each.last_loss:.3f} nats a token"
        for each in record.stages
    ]
    lines += [
        f"held out {each.data} ({each.task}, {each.clips} clips): {each.loss:.3f} nats a token"
        + ("" if each.loss_as_saved is None else f", {each.loss_as_saved:.3f} as saved")
        for each in record.validation
    ]
    return "\n".join([*lines, *record.notes, str(out)])
