"""`shoal report`: one HTML file from any of Shoal's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Audits, comparisons, task matrices, plans, searches, scores, benches, healing, heals.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="HTML", help="Where to write.")] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option("--title", help="Heading; by default it names the model.")
    ] = None,
) -> None:
    """Make a report that needs no network: one HTML file from any Shoal files."""
    from shoal.report import render
    from shoal.schema import load_document

    typer.echo(render([(str(path), load_document(path)) for path in files], out, title=title))
