"""`shoal prune`: carry out a plan, on disk."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.card import warn_of_speech
from shoal.errors import UsageError
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
    json: options.Json = False,
) -> None:
    """Write the model without the layers of a plan, verified in a fresh process."""
    from shoal.cards.spoken_answers import speech_untested
    from shoal.models.lineage import PLAN_FILE
    from shoal.models.weights import resolve
    from shoal.pruning.from_folder import choose_way
    from shoal.pruning.in_memory import check_whole

    # Read before the model is: a wrong plan shows at once.
    given = _given_plan(settings)
    check_whole(given or [])
    source = resolve(model).path
    if not force and _finished(model, source, given, settings, loading.dtype, out):
        info, plan, folder = _pruned_model(out), shoal.Plan.load(out / PLAN_FILE), out
        if not json:
            print("nothing left to do: this checkpoint is finished")
    elif choose_way(source, settings.how) == "disk":
        info = _info(model, loading.trust_remote_code)
        plan = given or _listed(settings, model, info)
        folder = _on_disk(model, plan, out, force, loading.trust_remote_code)
    else:
        loaded = shoal.load(model, loading)
        info = loaded.info()
        plan = given or _listed(settings, model, info)
        folder = shoal.prune(loaded, plan, out, force=force)
    print(_json(plan, folder) if json else summary(info, plan, folder))
    if speech_untested(info):
        warn_of_speech(str(folder))


def _finished(model: str, source: Path, given: Plan | None, settings: PruneSettings, dtype: str, out: Path) -> bool:
    """Whether `out` is what is asked for; told before the model is loaded."""
    from shoal.pruning.rerun import finished, stored_dtype

    layers = settings.layers_list or () if given is None else given.layers
    # "auto" depends on the device, so it contradicts nothing.
    known = {"stored": stored_dtype(source), "auto": None}
    return finished(out, layers, ref=model, source=source, dtype=known.get(dtype, dtype))


def _pruned_model(out: Path) -> ModelInfo:
    from shoal.cards.facts import source_record

    record = source_record(out)
    assert record is not None
    return record.model


def _given_plan(settings: PruneSettings) -> Plan | None:
    if (settings.plan is None) == (settings.layers_list is None):
        raise UsageError("nothing to remove or two lists of it", fix="give either --plan or --layers-list")
    return None if settings.plan is None else shoal.Plan.load(settings.plan)


def _listed(settings: PruneSettings, model: str, info: ModelInfo) -> Plan:
    from shoal.selection import manual

    return manual(model, info.depth, settings.layers_list or (), allow_last=settings.allow_last)


def _on_disk(model: str, plan: Plan, out: Path, force: bool, trust_remote_code: bool) -> Path:
    from shoal.cli.progress import progress_bars
    from shoal.pruning.from_folder import prune_folder

    with progress_bars() as progress:
        return prune_folder(
            model,
            plan,
            out,
            force=force,
            trust_remote_code=trust_remote_code,
            progress=lambda _, done, total: progress("copy, MB", done // 10**6, total // 10**6),
        )


def _info(model: str, trust_remote_code: bool) -> ModelInfo:
    """What the model is, from its config alone."""
    from shoal.models.families import find
    from shoal.models.info import model_info
    from shoal.models.meta_model import meta_model
    from shoal.models.weights import resolve

    source = resolve(model)
    skeleton = meta_model(source.path, trust_remote_code=trust_remote_code)
    return model_info(skeleton, find(skeleton), source.path, ref=model, licence=source.licence)


def summary(info: ModelInfo, plan: Plan, folder: Path) -> str:
    """A few lines for a person: what went, what is left, what was checked."""
    from shoal.schema.verification import REPORT_FILE, VerificationReport

    gone = sum(info.decoder_layer_parameters[layer] for layer in plan.layers)
    left = info.total_parameters - gone
    verified = (folder / REPORT_FILE).is_file()
    checks = VerificationReport.load(folder / REPORT_FILE).checks if verified else []
    lines = [
        f"removed layers {', '.join(map(str, plan.layers)) or 'none'} of {plan.depth}",
        f"{left:,} of {info.total_parameters:,} parameters left ({left / info.total_parameters:.1%})",
        *(f"verified {check.name}: {check.detail}" for check in checks),
        str(folder),
    ]
    return "\n".join(lines)


def _json(plan: Plan, folder: Path) -> str:
    from shoal.schema import read_json
    from shoal.schema.verification import REPORT_FILE

    record = {
        "path": str(folder),
        "plan": json_format.loads(plan.model_dump_json()),
        "verification": read_json(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None,
    }
    return json_format.dumps(record, indent=1)
