"""`shoal weights`: list, fetch and check the pretrained weights that pkg:NAME can name."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from shoal.cli.options import CHECK_FAILED, Command, Json
from shoal.cli.progress import in_megabytes, progress_bars

weights = Command("weights", help="List, fetch and check the pretrained weights that pkg:NAME can name.")

_PIPED_WIDTH = 160
"""Wide enough for one line an entry, so that grep works on it."""

Name = Annotated[str, Parameter(help="Name as 'shoal weights ls' shows it, with or without pkg:.")]
OptionalName = Annotated[str | None, Parameter(help="Name of the weights; default: everything in the cache.")]


@weights.command
def ls(*, json: Json = False) -> None:
    """List the weights that pkg:NAME can name, and which of them are in the cache."""
    from shoal.models import weights as known

    found = known.listing()
    if json:
        print(json_format.dumps([asdict(one) | {"path": str(one.path)} for one in found], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "download", "on disk", "cached"):
        table.add_column(heading, no_wrap=True)
    table.add_column("licence")
    for one in found:
        sizes = _megabytes(one.download_bytes), _megabytes(one.disk_bytes)
        table.add_row(f"pkg:{one.name}", *sizes, "yes" if one.cached else "no", one.licence)
    table.add_row(f"pkg:{known.REFERENCE}", "", "", "ships", known.REFERENCE_LICENCE)
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    out.print(table)


@weights.command
def get(
    name: Name,
    /,
    *,
    again: Annotated[bool, Parameter(help="Download even if the cache has them.")] = False,
    json: Json = False,
) -> None:
    """Download, check and convert weights, unless the cache has them; prints their folder."""
    from shoal.models import weights as known

    with progress_bars() as progress:
        path = known.get(name.removeprefix("pkg:"), again=again, report=in_megabytes(progress))
    print(json_format.dumps({"name": name.removeprefix("pkg:"), "path": str(path)}) if json else str(path))


@weights.command
def verify(name: OptionalName = None, /, *, json: Json = False) -> int:
    """Read cached weights again and compare every file with its record; exit code 4 if one differs."""
    from shoal.models import weights as known

    names = [name.removeprefix("pkg:")] if name else [one.name for one in known.listing() if one.path.exists()]
    problems = {one: known.verify(one) for one in names}
    if json:
        print(json_format.dumps(problems, indent=1))
    else:
        for one, wrong in problems.items():
            print(f"pkg:{one}: {'; '.join(wrong) or 'whole'}")
    for one in (one for one, wrong in problems.items() if wrong):
        print(f"shoal: pkg:{one} is damaged; run 'shoal weights get {one} --again'", file=sys.stderr)
    return CHECK_FAILED if any(problems.values()) else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
