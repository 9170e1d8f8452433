"""What every source of rows gives: raw rows, not yet checked."""

from __future__ import annotations

from collections.abc import Sequence
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
    """All rows of one source, and the rows that could not even be parsed."""

    name: str
    """As the user gave it, for messages."""
    label: str
    """Short name without any folder of this machine, for ids."""
    rows: Sequence[RawRow]
    """In memory, or read from the disk whenever one is asked for."""
    bad: list[BadRow] = field(default_factory=list)
