"""What a command prints of its result: lines and tables, or JSON, and last the files it wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel

from shoal import wording
from shoal.cli.progress import Reporter, progress_bars
from shoal.settings import OUTPUT, Settings
from shoal.tables import Table

Format = Literal["text", "md", "csv", "json"]


class Printing(Settings):
    """What is printed."""

    as_json: Annotated[bool, OUTPUT, Parameter(name="--json")] = False
    """Print the whole result as JSON."""
    quiet: Annotated[bool, OUTPUT, Parameter(alias="-q")] = False
    """Show only the result, and what went wrong."""
    verbose: Annotated[bool, OUTPUT, Parameter(alias="-v")] = False
    """Show what the libraries underneath report, too."""

    @property
    def chosen_format(self) -> Format:
        """How the result is printed."""
        return "json" if self.as_json else "text"

    @contextmanager
    def progress(self, folder: Path | None = None) -> Iterator[Reporter]:
        """Bars or lines on stderr while the command works.

        Args:
            folder: where the command stores what it has done, to go on from there; None if it must begin again.
        """
        logging.getLogger("shoal").setLevel(logging.ERROR if self.quiet else logging.NOTSET)
        if self.verbose:
            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        with progress_bars(folder, quiet=self.quiet) as progress:
            yield progress

    def show(
        self, result: BaseModel | Mapping[str, Any] | list[Any], lines: Sequence[str | Table], *written: Path
    ) -> None:
        """Print a result.

        Args:
            result: all of it, for JSON.
            lines: what a person is told of it.
            written: the files it was written to.
        """
        match self.chosen_format:
            case "json":
                plain = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
                print(json.dumps(plain, indent=1, ensure_ascii=False))
            case "text":
                for line in (*with_footnotes([str(line) for line in lines]), *written):
                    print(line)
            case form:
                tables = [line for line in lines if isinstance(line, Table)]
                texts = [table.as_csv() if form == "csv" else table.as_markdown() for table in tables]
                if form == "md":
                    texts += wording.footnotes("".join(texts))
                print("\n\n".join(texts) if tables else "\n".join(map(str, lines)))


def with_footnotes(lines: Sequence[str]) -> list[str]:
    """The lines, and behind the last that has a mark at an interval what the marks mean."""
    notes = wording.footnotes("\n".join(lines))
    last = max((index for index, line in enumerate(lines, start=1) if wording.footnotes(line)), default=0)
    return [*lines[:last], *notes, *lines[last:]]


class TablePrinting(Printing):
    """What is printed by a command that has tables."""

    format: Annotated[Format, OUTPUT] = "text"
    """Format of what is printed: text; md or csv for the tables alone; json for the whole result."""

    @property
    def chosen_format(self) -> Format:
        """How the result is printed."""
        return "json" if self.as_json else self.format
