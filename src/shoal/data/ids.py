"""Ids: unique within a data set, the same on every machine."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator

from shoal.data.checks import audio_path
from shoal.data.sources import RawRow, Source
from shoal.errors import InputError, ManifestError
from shoal.schema import BadRow


class IdGiver:
    """Gives every row an id, in the order of the sources.

    A row's own `id` is kept (prefixed by the manifest's name if an earlier manifest used it too). Others are
    called `<manifest>:<audio stem>`, with `@offset` and then `#2`, `#3` … where that is not unique.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def name_rows(self, source: Source, bad: list[BadRow]) -> Iterator[tuple[int, RawRow, str]]:
        """Name the rows of one source, one after the other.

        Args:
            source: read twice, in order.
            bad: takes the rows that cannot be named or repeat an id.

        Yields:
            Place in the source, the row, and its id.
        """
        own_lines: dict[str, int] = {}
        stems = Counter(_stem(raw.fields.get("audio_filepath")) for raw in source.rows)
        for place, raw in enumerate(source.rows):
            try:
                row_id = self._own(raw, source.label, own_lines) or self._made(raw, source.label, stems)
            except (InputError, ValueError) as error:
                reason = error.what if isinstance(error, InputError) else str(error)
                bad.append(BadRow(manifest=raw.manifest, line=raw.line, reason=reason))
            else:
                self._used.add(row_id)
                yield place, raw, row_id

    def _own(self, raw: RawRow, label: str, lines: dict[str, int]) -> str | None:
        """The row's own id.

        Raises:
            ManifestError: not a name, or repeated within the manifest.
        """
        value = raw.fields.get("id")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ManifestError("id is neither text nor a whole number")
        own = str(value)
        if own in lines:
            raise ManifestError(f"id {own!r} stands on line {lines[own]} already")
        lines[own] = raw.line
        return own if own not in self._used else self._numbered(f"{label}:{own}")

    def _made(self, raw: RawRow, label: str, stems: Counter[str]) -> str:
        """An id from the audio's name.

        Raises:
            ValueError: the row names no audio.
        """
        stem = _stem(audio_path(raw.fields))
        row_id = f"{label}:{stem}"
        offset = raw.fields.get("offset")
        if stems[stem] > 1 and isinstance(offset, int | float):
            row_id += f"@{offset:g}"
        return self._numbered(row_id)

    def _numbered(self, row_id: str) -> str:
        if row_id not in self._used:
            return row_id
        number = self._next.get(row_id, 2)
        while f"{row_id}#{number}" in self._used:
            number += 1
        self._next[row_id] = number + 1
        return f"{row_id}#{number}"


def _stem(path: object) -> str:
    """The file name without its suffix; as text, because `pathlib` is slow on large manifests."""
    return posixpath.splitext(posixpath.basename(path))[0] if isinstance(path, str) else ""
