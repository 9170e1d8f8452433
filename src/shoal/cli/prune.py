"""`shoal prune`: carry out a plan, on disk."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import typer_options as options
from shoal.cli.card import warn_of_speech
from shoal.errors import UsageError
from shoal.schema import ModelInfo, Plan

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


def prune(
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The checkpoint folder to make.")],
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="A plan.json from shoal select.")
    ] = None,
    layers_list: Annotated[
        str | None, typer.Option("--layers-list", metavar="3,4,5", help="Or the layers themselves, 0-based.")
    ] = None,
    allow_last: Annotated[
        bool, typer.Option("--allow-last", help="With --layers-list: the last layer may go too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace DIR if there is something already.")
    ] = False,
    how: Annotated[
        str,
        typer.Option(
            "--how",
            help="memory: load, prune, save; disk: copy shard by shard without loading; auto: disk if it does not fit.",
        ),
    ] = "auto",
    device: options.Device = "cpu",
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="In memory: what to load and save in; default: as it is stored."),
    ] = "stored",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Write the model without the plan's layers, verified in a fresh process before it gets its name."""
    from shoal.cards.speaking import speech_untested
    from shoal.models.weights import resolve
    from shoal.pruning.from_folder import choose_way
    from shoal.pruning.in_memory import check_whole
    from shoal.selection import manual

    _check_choice(plan, layers_list)
    # Read before the model is: a wrong plan shows at once.
    given = None if plan is None else Plan.load(plan)
    check_whole(given or [])
    wanted = [] if layers_list is None else parse_layers(layers_list)
    if choose_way(resolve(model).path, how) == "disk":
        info = _info(model, trust_remote_code)
        chosen = given or manual(model, info.depth, wanted, allow_last=allow_last)
        folder = _on_disk(model, chosen, out, force, trust_remote_code)
    else:
        loaded = _load(model, device, dtype, trust_remote_code)
        info = loaded.info()
        chosen = given or manual(model, info.depth, wanted, allow_last=allow_last)
        folder = _in_memory(loaded, chosen, out, force)
    typer.echo(_json(chosen, folder) if json else summary(info, chosen, folder))
    if speech_untested(info):
        warn_of_speech(str(folder))


def _load(model: str, device: str, dtype: str, trust_remote_code: bool) -> LoadedModel:
    import shoal

    return shoal.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)


def _in_memory(loaded: LoadedModel, plan: Plan, out: Path, force: bool) -> Path:
    from shoal.pruning import prune as write_pruned

    return write_pruned(loaded, plan, out, force=force)


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


def parse_layers(text: str) -> list[int]:
    """`"3,4,5"` → `[3, 4, 5]`.

    Raises:
        UsageError: not a list of whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{text!r} is not a list of layers", where="--layers-list", fix="write --layers-list 3,4,5"
        ) from None


def summary(info: ModelInfo, plan: Plan, folder: Path) -> str:
    """A few lines for a person: what went, what is left, what was checked."""
    from shoal.schema.verification import REPORT_FILE, VerificationReport

    gone = sum(info.decoder_layer_parameters[layer] for layer in plan.layers)
    left = info.total_parameters - gone
    checks = VerificationReport.load(folder / REPORT_FILE).checks
    lines = [
        f"removed layers {', '.join(map(str, plan.layers)) or 'none'} of {plan.depth}",
        f"{left:,} of {info.total_parameters:,} parameters left ({left / info.total_parameters:.1%})",
        *(f"verified {check.name}: {check.detail}" for check in checks),
        str(folder),
    ]
    return "\n".join(lines)


def _check_choice(plan: Path | None, layers_list: str | None) -> None:
    if (plan is None) == (layers_list is None):
        raise UsageError("nothing to remove or two lists of it", fix="give either --plan or --layers-list")


def _json(plan: Plan, folder: Path) -> str:
    from shoal.schema import read_json
    from shoal.schema.verification import REPORT_FILE

    record = {
        "path": str(folder),
        "plan": json_format.loads(plan.model_dump_json()),
        "verification": read_json(folder / REPORT_FILE),
    }
    return json_format.dumps(record, indent=1)
