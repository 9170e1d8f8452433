"""`shoal heal`: train a little after pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from shoal.cli import training
from shoal.cli import typer_options as options
from shoal.cli.card import warn_of_speech
from shoal.errors import UsageError
from shoal.schema import HealRecord, Plan


def heal(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PRUNED", help="A folder from shoal prune; or, with --plan, the model to prune."
        ),
    ],
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The checkpoint folder to make.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="receiver, projector, decoder, joint (receiver + projector), joint-decoder, head, replace, linear.",
        ),
    ] = "joint",
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Prune PRUNED by this plan first.")
    ] = None,
    save: Annotated[
        str, typer.Option("--save", help="merged: a whole checkpoint; adapters: PEFT's format beside PRUNED.")
    ] = "merged",
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", metavar="MODEL", help="The unpruned model; default: the one the plan names."
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            "--validation", metavar="MANIFEST", help="Clips to watch the loss on; default: 5% of --data."
        ),
    ] = None,
    task: options.TaskName = "asr",
    input_kind: Annotated[str, typer.Option("--input", help="speech or text.")] = "speech",
    limit: options.Limit = None,
    where: options.Where = None,
    lang: options.Lang = None,
    max_bad: options.MaxBad = 0.01,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps [500].")] = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="Clips a step [16].")] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of low-rank updates.")] = 64,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Their scaling is alpha / rank [the rank].")
    ] = None,
    dropout: Annotated[float, typer.Option("--dropout", help="Of their inputs.")] = 0.05,
    lora_lr: Annotated[
        float | None, typer.Option("--lora-lr", help="Rate of low-rank updates [6e-4].")
    ] = None,
    projector_lr: Annotated[
        float | None, typer.Option("--projector-lr", help="Rate of the projector [5e-4].")
    ] = None,
    full_lr: Annotated[
        float | None, typer.Option("--full-lr", help="Rate of whole weights (head, replace) [1e-4].")
    ] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", help="cosine, linear or constant.")] = None,
    ce: Annotated[
        float | None, typer.Option("--ce", help="Weight of the response's cross-entropy [1].")
    ] = None,
    kl: Annotated[
        float | None, typer.Option("--kl", help="Weight of the distillation from the unpruned model [0].")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of --kl [1].")] = None,
    hidden: Annotated[
        float | None, typer.Option("--hidden", help="Weight of the hidden states behind the cut [0].")
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="plain, or linear: begin from the closed form.")
    ] = "plain",
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
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Heal a pruned model and write it, verified; the same command again goes on where it was interrupted."""
    import shoal
    from shoal import tasks
    from shoal.cards.speaking import speech_untested
    from shoal.cli.progress import progress_bars
    from shoal.healing import targets
    from shoal.healing.job import HealingJob
    from shoal.healing.run import run_heal
    from shoal.healing.settings import CLIPS, STEPS, HealSettings
    from shoal.training.settings import Objective, Optimisation

    if input_kind not in ("speech", "text"):
        raise UsageError(f"unknown input {input_kind!r}", where="--input", fix="use speech or text")
    if save not in ("merged", "adapters"):
        raise UsageError(f"unknown form {save!r}", where="--save", fix="use merged or adapters")
    targets.get(target)
    given = None if plan is None else Plan.load(plan)
    optimisation = training.set_fields(
        Optimisation(steps=STEPS, clips=CLIPS),
        {
            "steps": steps,
            "clips": clips,
            "lora_lr": lora_lr,
            "projector_lr": projector_lr,
            "full_lr": full_lr,
            "schedule": schedule,
        },
    )
    objective = training.set_fields(
        Objective(), {"ce": ce, "kl": kl, "temperature": temperature, "hidden": hidden}
    )
    settings = training.set_fields(
        HealSettings(target=target, rank=rank),
        {
            "alpha": alpha,
            "dropout": dropout,
            "optimisation": optimisation,
            "objective": objective,
            "start": start,
            "seed": seed,
        },
    )
    how = training.how_to(
        max_positions=max_positions,
        workers=workers,
        save_every=save_every,
        report_to=report_to,
        precision=precision,
        features=features,
        gradient_checkpointing=gradient_checkpointing,
        run_name=f"shoal-heal-{out.name}",
    )

    def read(sources: list[str], most: int | None) -> shoal.Dataset:
        return options.read_data(
            sources, task=task, limit=most, where=where, lang=lang, max_bad=max_bad, seed=seed
        )

    dataset = read(data, limit)
    watched = read(validation, None) if validation else None
    loaded = shoal.load(
        model, device=training.own_device(device), dtype=dtype, trust_remote_code=trust_remote_code
    )
    with progress_bars() as progress:
        job = HealingJob(
            dataset,
            tasks.get(task),
            settings,
            input=cast("Literal['speech', 'text']", input_kind),
            plan=given,
            validation=watched,
            teacher=teacher,
            out=out,
            save_as=cast("Literal['merged', 'adapters']", save),
            force=force,
            trust_remote_code=trust_remote_code,
            how=how,
            progress=progress,
        )
        healed = run_heal(loaded, job)
    if healed.folder is not None:
        record = healed.record
        typer.echo(record.model_dump_json(indent=1) if json else summary(record, out))
        if speech_untested(record.model, folder=out):
            warn_of_speech(str(out))


def summary(record: HealRecord, out: Path) -> str:
    """A few lines for a person."""
    lines = [
        f"healed {record.model.ref} by {record.target}: {record.steps} steps, {record.clips} clips, "
        f"{record.seconds:.0f} s, {record.trained_parameters:,} parameters"
    ]
    if record.loss_before is not None and record.loss_after is not None:
        lines.append(
            f"loss on clips not trained on: {record.loss_before:.3f} to {record.loss_after:.3f} nats a token"
        )
    return "\n".join([*lines, *record.notes, str(out)])
