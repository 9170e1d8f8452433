"""The index of encoder states on disk: one line for each state, appended once its data is on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from shoal.errors import FileFormatError


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an index."""

    key: str
    shard: str
    start: int
    frames: int

    @property
    def end(self) -> int:
        """The frame behind the last."""
        return self.start + self.frames

    @property
    def line(self) -> bytes:
        """How it stands in the index."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Entry | None:
        """The entry of a line without its end; None if the line is damaged."""
        try:
            fields = json.loads(line)
            entry = cls(fields["key"], fields["shard"], int(fields["start"]), int(fields["frames"]))
        except (ValueError, KeyError, TypeError):
            return None
        whole = (
            isinstance(entry.key, str)
            and isinstance(entry.shard, str)
            and Path(entry.shard).name == entry.shard
        )
        return entry if whole and entry.start >= 0 and entry.frames > 0 else None


def readable(index: Path, frame_bytes: int) -> list[Entry]:
    """The entries of an index whose line is whole and whose data is there; none without an index.

    Raises:
        FileFormatError: the index cannot be read.
    """
    try:
        content = index.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(index)) from None
    *lines, _ = content.split(b"\n")
    entries = [entry for entry in map(Entry.parse, lines) if entry is not None]
    frames = {name: _bytes(index.parent / name) // frame_bytes for name in {entry.shard for entry in entries}}
    return [entry for entry in entries if entry.end <= frames[entry.shard]]


def mended(index: Path, frame_bytes: int) -> list[Entry]:
    """The readable entries, after the index was brought to hold exactly these.

    A line whose data is lost must not stay: it would name what is written there next.
    """
    entries = readable(index, frame_bytes)
    content = b"".join(entry.line for entry in entries)
    if index.exists() and index.read_bytes() != content:
        draft = index.with_suffix(".tmp")
        draft.write_bytes(content)
        draft.replace(index)
    return entries


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
