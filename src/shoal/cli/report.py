"""`shoal report`: one HTML file from any of Shoal's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import shoal
from shoal.cli import options
from shoal.cli.printing import Printing
from shoal.settings import DATA, OUTPUT


@options.command
def report(
    files: Annotated[
        list[Path],
        DATA,
        Parameter(
            name="FILE",
            help="Files to report on: audit.json, plan.json, scores.json, bench.json, search.json … or their folders.",
        ),
    ],
    /,
    *,
    out: Annotated[Path, OUTPUT, Parameter(help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str | None, OUTPUT, Parameter(help="Heading of the page; default: names the model.")] = None,
    printing: Annotated[Printing, options.Flat] = Printing(),
) -> None:
    """Make one HTML page, which needs no network, from any of Shoal's files."""
    from shoal.schema import load_documents

    with printing.progress():
        page = shoal.render([document for path in files for document in load_documents(path)], out, title=title)
    printing.show({"path": str(page)}, [], page)
