"""`shoal compare`: are two audits alike, or several?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from shoal import wording
from shoal.cli import options
from shoal.cli.matrix import Combine, Sizes, Weights, numbers
from shoal.cli.matrix import summary as matrix_summary
from shoal.errors import UsageError
from shoal.schema import SCOPES, Comparison, InputKind, Scope, TaskMatrix


def compare(
    audits: Annotated[
        list[Path],
        typer.Argument(metavar="AUDIT…", help="Two audit.json or more, or one with speech and text."),
    ],
    input_a: Annotated[
        str | None, typer.Option("--input-a", help="Which input of the first: speech or text.")
    ] = None,
    input_b: Annotated[str | None, typer.Option("--input-b", help="Which input of the second.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Default: all both have, repeatable; of a matrix one, default all."),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Side by side with shared plans, as three audits or more are.")
    ] = False,
    inputs: Annotated[
        str | None, typer.Option("--inputs", help="Of a matrix: which input of each, such as speech,text.")
    ] = None,
    sizes: Sizes = None,
    combine: Combine = "mean",
    weights: Weights = None,
    replicates: options.Replicates = 1000,
    seed: options.Seed = 0,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Compare audits: rank correlation of the triangles, overlap of the chosen blocks, with intervals.

    Three or more, of one model, make a matrix: besides, what each task loses under a plan made for another or for all.
    """
    import shoal

    paths = [path / "audit.json" if path.is_dir() else path for path in audits]
    document: Comparison | TaskMatrix
    if matrix or len(paths) > 2:
        _refuse("--matrix takes --inputs", {"--input-a": input_a, "--input-b": input_b})
        document = shoal.task_matrix(
            paths,
            inputs=None if inputs is None else [_choice(name, "--inputs") for name in inputs.split(",")],
            scope=_one_scope(scope),
            sizes=numbers(sizes, "--sizes", int),
            combine=cast("Literal['mean', 'worst']", combine),
            weights=numbers(weights, "--weights", float),
            replicates=replicates,
            seed=seed,
        )
    else:
        _refuse("add --matrix", {"--inputs": inputs, "--sizes": sizes, "--weights": weights})
        document = shoal.compare(
            paths[0],
            paths[-1],
            input_a=_choice(input_a, "--input-a"),
            input_b=_choice(input_b, "--input-b"),
            scopes=_scopes(scope),
            replicates=replicates,
            seed=seed,
        )
    if out is not None:
        document.save(out)
    typer.echo(document.model_dump_json(indent=1) if json else _summary(document))


def _summary(document: Comparison | TaskMatrix) -> str:
    return matrix_summary(document) if isinstance(document, TaskMatrix) else summary(document)


def _refuse(fix: str, options: dict[str, str | None]) -> None:
    for flag, given in options.items():
        if given is not None:
            raise UsageError("does not fit here", where=flag, fix=fix)


def _one_scope(names: list[str] | None) -> Scope:
    scopes = _scopes(names) or ["all"]
    if len(scopes) > 1:
        raise UsageError("a matrix has one scope", where="--scope", fix="give it once")
    return scopes[0]


def summary(document: Comparison) -> str:
    """A few lines for a person."""
    lines = [f"a: {document.a.label}", f"b: {document.b.label}", f"resampled together: {document.paired}"]
    for scope, found in document.scopes.items():
        estimates = (found.spearman, found.spearman_within_n, found.mean_overlap)
        overall, one_size, overlap = (wording.plain(estimate, ".3f") for estimate in estimates)
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
