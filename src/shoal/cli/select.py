"""`shoal select`: which layers go?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from shoal.cli import options
from shoal.cli.table import with_interval
from shoal.schema import Audit, InputKind, Plan, Scope, write_text


def select(
    audit: Annotated[Path, typer.Argument(metavar="AUDIT", help="An audit.json, or the folder it lies in.")],
    layers: Annotated[str, typer.Option("--layers", help="How many to remove: 8, or 30% of the depth.")],
    strategy: Annotated[
        str, typer.Option("--strategy", help="contiguous, deepest, uniform, random or lowest.")
    ] = "contiguous",
    input: Annotated[
        str | None, typer.Option("--input", help="speech or text; default: speech if it was measured.")
    ] = None,
    scope: Annotated[
        str, typer.Option("--scope", help="Which positions count: all, audio, prompt, text or last.")
    ] = "all",
    metric: Annotated[
        str | None, typer.Option("--metric", help="What to rank by; default: the strategy's own.")
    ] = None,
    seed: options.Seed = 0,
    allow_last: Annotated[bool, typer.Option("--allow-last", help="The last layer may go too.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    mergekit: Annotated[
        Path | None, typer.Option("--mergekit", metavar="FILE", help="Write it as mergekit YAML too.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Choose the layers to remove from an audit, and write the plan."""
    from shoal.select import mergekit_yaml
    from shoal.select import select as choose

    path = audit / "audit.json" if audit.is_dir() else audit
    plan = choose(
        Audit.load(path),
        layers,
        strategy=strategy,
        input=cast("InputKind | None", input),
        scope=cast("Scope", scope),
        metric=metric,
        seed=seed,
        allow_last=allow_last,
        source_path=str(path),
    )
    plan.save(out)
    if mergekit is not None:
        write_text(mergekit, mergekit_yaml(plan))
    typer.echo(plan.model_dump_json(indent=1) if json else summary(plan, out))


def summary(plan: Plan, out: Path) -> str:
    """A few lines for a person: the explicit list of layers, the half-open range, how sure the choice is."""
    removed = ", ".join(map(str, plan.layers))
    lines = [
        f"remove {len(plan.layers)} of {plan.depth} layers of {plan.model_ref} ({plan.strategy}): {removed}"
    ]
    if plan.block is not None:
        lines.append(
            f"that is the block [{plan.block[0]}, {plan.block[1]}), 0-based, the last one not included"
        )
    if (distance := plan.distance) is not None:
        lines.append(f"angular distance {with_interval(distance, '.4f')} in units of pi")
    if plan.stability is not None:
        lines.append(f"the best block of its size in {plan.stability:.0%} of bootstrap replicates")
    return "\n".join([*lines, str(out)])
