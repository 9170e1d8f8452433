"""`shoal report`: one HTML file from any of Shoal's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.settings import DATA, OUTPUT


@options.command
def report(
    files: Annotated[
        list[Path],
        DATA,
        Parameter(
            name="FILE",
            help="Audits, comparisons, task matrices, plans, searches, scores, benches, healing, heals.",
        ),
    ],
    /,
    *,
    out: Annotated[Path, OUTPUT, Parameter(help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str | None, OUTPUT, Parameter(help="Heading of the page; default: names the model.")] = None,
) -> None:
    """Make a report that needs no network: one HTML file from any Shoal files."""
    from shoal.schema import load_document

    print(shoal.render([(str(path), load_document(path)) for path in files], out, title=title))
