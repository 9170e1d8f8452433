"""`shoal prune`: carry out a plan, on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.card import warn_of_speech
from shoal.cli.printing import Printing
from shoal.errors import UsageError
from shoal.progress import Progress, stage
from shoal.pruning.settings import PruneLoading, PruneSettings
from shoal.settings import OUTPUT

if TYPE_CHECKING:
    from shoal.schema import ModelInfo, Plan


@options.command
def prune(
    model: options.Model,
    /,
    *,
    loading: Annotated[PruneLoading, options.Flat] = PruneLoading(),
    settings: Annotated[PruneSettings, options.Flat] = PruneSettings(),
    out: Annotated[Path, OUTPUT, Parameter(help="Checkpoint folder to make.", metavar="DIR")],
    force: Annotated[bool, OUTPUT, Parameter(help="Replace the folder if there is something already.")] = False,
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Write the model without the layers of a plan, verified in a fresh process."""
    from shoal.cards.spoken_answers import speech_untested
    from shoal.models.lineage import PLAN_FILE
    from shoal.models.weights import resolve
    from shoal.pruning.in_memory import check_whole

    # Read before the model is: a wrong plan shows at once.
    chosen = _chosen_plan(settings)
    check_whole(chosen or [])
    with printing.progress(out) as progress:
        if not force and _finished(model, resolve(model).path, chosen, settings, loading.dtype, out):
            progress.say("nothing left to do: this checkpoint is finished")
            info, plan, folder = _pruned_model(out), shoal.Plan.load(out / PLAN_FILE), out
        else:
            info, plan, folder = _pruned(model, chosen, settings, loading, out, force, progress)
    printing.show(_record(plan, folder), summary(info, plan, folder), folder)
    if speech_untested(info):
        warn_of_speech(str(folder))


def _pruned(
    model: str,
    chosen: Plan | None,
    settings: PruneSettings,
    loading: PruneLoading,
    out: Path,
    force: bool,
    progress: Progress,
) -> tuple[ModelInfo, Plan, Path]:
    """The unpruned model, the plan that was carried out, and the checkpoint."""
    from shoal.cli.progress import in_megabytes
    from shoal.models.weights import resolve
    from shoal.pruning.folder import check_target
    from shoal.pruning.from_folder import choose_way
    from shoal.selection import manual

    check_target(out, None, force)
    by_hand = partial(manual, model, layers=settings.layers_list or (), allow_last=settings.allow_last)
    options.check_depth(model, [chosen.check_depth if chosen else by_hand])
    on_disk = choose_way(resolve(model).path, settings.how) == "disk"
    loaded = None if on_disk else options.load(model, loading, progress)
    info = loaded.info() if loaded else _info(model, loading.trust_remote_code)
    plan = chosen or by_hand(info.depth)
    if loaded:
        with stage(progress, "write and verify"):
            return info, plan, shoal.prune(loaded, plan, out, force=force)
    folder = shoal.prune_folder(
        model,
        plan,
        out,
        force=force,
        trust_remote_code=loading.trust_remote_code,
        progress=lambda _, done, total: in_megabytes(progress)("copy", done, total),
    )
    return info, plan, folder


def _finished(model: str, source: Path, chosen: Plan | None, settings: PruneSettings, dtype: str, out: Path) -> bool:
    """Whether `out` is what is asked for; told before the model is loaded."""
    from shoal.pruning.rerun import finished, stored_dtype

    layers = settings.layers_list or () if chosen is None else chosen.layers
    # "auto" depends on the device, so it contradicts nothing.
    known = {"stored": stored_dtype(source), "auto": None}
    return finished(out, layers, ref=model, source=source, dtype=known.get(dtype, dtype))


def _pruned_model(out: Path) -> ModelInfo:
    from shoal.cards.facts import source_record

    record = source_record(out)
    assert record is not None
    return record.model


def _chosen_plan(settings: PruneSettings) -> Plan | None:
    if (settings.plan is None) == (settings.layers_list is None):
        raise UsageError("nothing to remove or two lists of it", fix="give either --plan or --layers-list")
    return None if settings.plan is None else shoal.Plan.load(settings.plan)


def _info(model: str, trust_remote_code: bool) -> ModelInfo:
    """What the model is, from its config alone."""
    from shoal.models.families import find
    from shoal.models.info import model_info
    from shoal.models.meta_model import meta_model
    from shoal.models.weights import resolve

    source = resolve(model)
    skeleton = meta_model(source.path, trust_remote_code=trust_remote_code)
    return model_info(skeleton, find(skeleton), source.path, ref=model, licence=source.licence)


def summary(info: ModelInfo, plan: Plan, folder: Path) -> list[str]:
    """A few lines for a person: what went, what is left, what was checked."""
    gone = sum(info.decoder_layer_parameters[layer] for layer in plan.layers)
    left = info.total_parameters - gone
    return [
        f"removed layers {','.join(map(str, plan.layers)) or 'none'} of {plan.depth}",
        f"{left:,} of {info.total_parameters:,} parameters left ({left / info.total_parameters:.1%})",
        *([f"the plan is {plan.note}"] if plan.note else []),
        *checks(folder),
    ]


def checks(folder: Path) -> list[str]:
    """What was verified of a checkpoint, a line each."""
    from shoal.schema.verification import REPORT_FILE, VerificationReport

    if not (folder / REPORT_FILE).is_file():
        return []
    report = VerificationReport.load(folder / REPORT_FILE)
    lines = [f"verified {check.name}: {check.detail}" for check in report.checks]
    return [*lines, f"tensors of the source: {report.source_tensors}"] if report.source_tensors else lines


def _record(plan: Plan, folder: Path) -> dict[str, object]:
    from shoal.schema import read_json
    from shoal.schema.verification import REPORT_FILE

    return {
        "path": str(folder),
        "plan": plan.model_dump(mode="json"),
        "verification": read_json(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None,
    }
