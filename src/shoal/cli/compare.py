"""`shoal compare`: are two audits alike?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from shoal.cli import options
from shoal.cli.table import with_interval
from shoal.errors import UsageError
from shoal.schema import SCOPES, Comparison, InputKind, Scope


def compare(
    audits: Annotated[
        list[Path], typer.Argument(metavar="AUDIT…", help="Two audit.json, or one with speech and text.")
    ],
    input_a: Annotated[
        str | None, typer.Option("--input-a", help="Which input of the first: speech or text.")
    ] = None,
    input_b: Annotated[str | None, typer.Option("--input-b", help="Which input of the second.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Default: all both have. Repeatable.")
    ] = None,
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Compare two audits: rank correlation of the triangles, overlap of the chosen blocks, with intervals."""
    import shoal

    if len(audits) > 2:
        raise UsageError(f"{len(audits)} audits given", fix="give one (speech against text) or two")
    document = shoal.compare(
        audits[0],
        audits[-1],
        input_a=_choice(input_a, "--input-a"),
        input_b=_choice(input_b, "--input-b"),
        scopes=_scopes(scope),
        replicates=replicates,
        seed=seed,
    )
    if out is not None:
        document.save(out)
    typer.echo(document.model_dump_json(indent=1) if json else summary(document))


def summary(document: Comparison) -> str:
    """A few lines for a person."""
    lines = [f"a: {document.a.label}", f"b: {document.b.label}", f"resampled together: {document.paired}"]
    for scope, found in document.scopes.items():
        estimates = (found.spearman, found.spearman_within_n, found.mean_overlap)
        overall, one_size, overlap = (with_interval(estimate, ".3f") for estimate in estimates)
        lines.append(
            f"{scope:<7} rank correlation {overall}, among blocks of one size {one_size}; "
            f"overlap of the best blocks {overlap}"
        )
    return "\n".join(lines)


def _choice(name: str | None, flag: str) -> InputKind | None:
    if name not in (None, "speech", "text"):
        raise UsageError(f"unknown input {name!r}", where=flag, fix="use speech or text")
    return cast("InputKind | None", name)


def _scopes(names: list[str] | None) -> list[Scope] | None:
    for name in names or ():
        if name not in SCOPES:
            raise UsageError(f"unknown scope {name!r}", where="--scope", fix=f"use {', '.join(SCOPES)}")
    return cast("list[Scope] | None", names)
