"""`shoal prune`: carry out a plan, on disk."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import options
from shoal.errors import UsageError
from shoal.schema import Plan

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
    device: options.Device = "cpu",
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="What to load and save in; default: what the checkpoint is stored in."),
    ] = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Write the model without the plan's layers, verified in a fresh process before it gets its name."""
    import shoal.models
    from shoal.prune import prune as write_pruned

    _check_choice(plan, layers_list)
    # Read before the model is: a wrong plan shows at once.
    given = None if plan is None else Plan.load(plan)
    wanted = [] if layers_list is None else parse_layers(layers_list)
    loaded = shoal.models.load(
        model, device=device, dtype=_dtype(model, dtype), trust_remote_code=trust_remote_code
    )
    chosen = given or _manual(loaded, wanted, allow_last)
    folder = write_pruned(loaded, chosen, out, force=force)
    typer.echo(_json(chosen, folder) if json else summary(loaded, chosen, folder))


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


def summary(loaded: LoadedModel, plan: Plan, folder: Path) -> str:
    """A few lines for a person: what went, what is left, what was checked."""
    from shoal.prune.verify import REPORT_FILE, VerificationReport

    info = loaded.info()
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


def _manual(loaded: LoadedModel, layers: list[int], allow_last: bool) -> Plan:
    from shoal.select import manual

    return manual(loaded.ref, loaded.info().depth, layers, allow_last=allow_last)


def _dtype(model: str, dtype: str) -> str:
    """`auto` → what the checkpoint is stored in, so that pruning does not change a model's precision."""
    if dtype != "auto":
        return dtype
    from shoal.models.weights import resolve

    try:
        config = json_format.loads((resolve(model).path / "config.json").read_text(encoding="utf-8"))
        stored = config.get("dtype") or config.get("torch_dtype")
    except (OSError, ValueError, AttributeError):
        return dtype
    return stored if stored in ("float32", "bfloat16", "float16") else dtype


def _json(plan: Plan, folder: Path) -> str:
    from shoal.prune.verify import REPORT_FILE
    from shoal.schema import read_json

    record = {
        "path": str(folder),
        "plan": json_format.loads(plan.model_dump_json()),
        "verification": read_json(folder / REPORT_FILE),
    }
    return json_format.dumps(record, indent=1)
