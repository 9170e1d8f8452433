"""`shoal select`: which layers go?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from shoal import wording
from shoal.cli import options
from shoal.cli.matrix import Combine, Weights, numbers
from shoal.schema import Audit, InputKind, Part, Plan, Scope, write_text


def select(
    audits: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIT…", help="An audit.json or its folder; several of one model share a plan."
        ),
    ],
    layers: Annotated[str, typer.Option("--layers", help="How many to remove: 8, or 30% of the depth.")],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="contiguous (default), deepest, uniform, random, lowest or consensus (of several audits).",
        ),
    ] = None,
    input: Annotated[
        str | None, typer.Option("--input", help="speech or text; default: speech if it was measured.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            help="Which positions count: all, audio, prompt, text or last; default: all, or the metric's own.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="What to rank by: angular, influence, gradient, gradient-signed, ablation, ablation-kl or "
            "ablation-score; default: the strategy's own.",
        ),
    ] = None,
    part: Annotated[
        str,
        typer.Option("--part", help="layer, or only the attention or mlp of each (by gradient or ablation)."),
    ] = "layer",
    combine: Combine = "mean",
    weights: Weights = None,
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
    """Choose the layers to remove from an audit, or from several of one model, and write the plan."""
    from shoal.selection import mergekit_yaml
    from shoal.selection import select as choose

    paths = [path / "audit.json" if path.is_dir() else path for path in audits]
    plan = choose(
        [Audit.load(path) for path in paths],
        layers,
        strategy=strategy,
        input=cast("InputKind | None", input),
        scope=cast("Scope | None", scope),
        metric=metric,
        part=cast("Part", part),
        combine=cast("Literal['mean', 'worst']", combine),
        weights=numbers(weights, "--weights", float),
        seed=seed,
        allow_last=allow_last,
        source_path=[str(path) for path in paths],
    )
    yaml = None if mergekit is None else mergekit_yaml(plan)
    plan.save(out)
    if mergekit is not None and yaml is not None:
        write_text(mergekit, yaml)
    typer.echo(plan.model_dump_json(indent=1) if json else summary(plan, out))


def summary(plan: Plan, out: Path) -> str:
    """A few lines for a person: the explicit list of layers, the half-open range, how sure the choice is."""
    removed = ", ".join(map(str, plan.layers))
    what = "layers" if plan.part == "layer" else f"layers' {plan.part}"
    lines = [
        f"remove {len(plan.layers)} of {plan.depth} {what} of {plan.model_ref} ({plan.strategy}): {removed}"
    ]
    if plan.block is not None:
        lines.append(
            f"that is the block [{plan.block[0]}, {plan.block[1]}), 0-based, the last one not included"
        )
    if (distance := plan.distance) is not None:
        lines.append(f"angular distance {wording.plain(distance, '.4f')} in units of pi")
    if plan.importance is not None and plan.source is not None:
        lines.append(f"{plan.source.metric} {wording.plain(plan.importance, '.4f')}")
    if plan.source is not None and plan.source.others:
        lines.append(f"for {1 + len(plan.source.others)} audits, joined by {plan.source.combine}")
    if plan.stability is not None:
        lines.append(f"the best block of its size in {plan.stability:.0%} of bootstrap replicates")
    return "\n".join([*lines, str(out)])
