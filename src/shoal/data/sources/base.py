"""What every source of rows gives: raw rows, not yet checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.data.clip import AudioBytes
from shoal.schema import BadRow


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its source holds it; nothing about its fields has been checked."""

    manifest: str
    """The source as the user named it."""
    line: int
    """1-based line, or position in a source without lines; ascending within a source."""
    fields: dict[str, Any]
    folder: Path = field(default_factory=Path)
    """Relative audio paths start here."""
    blob: AudioBytes | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of one source."""

    name: str
    """As the user gave it, for messages."""
    label: str
    """Short name without any folder of this machine, for ids."""
    rows: Sequence[RawRow]
    """In memory, or read from the disk whenever one is asked for."""
    bad: list[BadRow] = field(default_factory=list)
    """Rows that could not even be parsed; of a manifest, as far as it has been scanned."""
    scan: Callable[[], Iterable[RawRow]] | None = None
    """Reads all rows for the first time, where `rows` knows none before that."""

    def read(self) -> Iterator[tuple[int, RawRow]]:
        """Every row with its place in `rows`, in order, each parsed once.

        Raises:
            ManifestError: the source cannot be read.
        """
        yield from enumerate(self.rows if self.scan is None else self.scan())

    def lines(self) -> int:
        """How many rows there are, about: lines that are blank or bad count too, so that none need be parsed."""
        if self.scan is None:
            return len(self.rows)
        with Path(self.name).open("rb") as handle:
            return sum(1 for _ in handle)
