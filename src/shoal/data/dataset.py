"""The rows that are used, the rows that are not, and the clips behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from shoal.data import badrows
from shoal.data.audio import decoder_name, load_audio, resampler_name
from shoal.data.clip import Clip, Row
from shoal.errors import AudioError
from shoal.schema import BadRow, DataInfo


@dataclass
class Dataset:
    """Rows that passed their checks, in manifest order.

    Attributes:
        manifests: the sources as the user named them.
        rows: the rows in use; a row whose samples turn out bad leaves the list when it is decoded.
        skipped: the rows left out, and why.
        max_bad: how many rows may be left out (a share below 1, or a count).
    """

    manifests: list[str]
    rows: list[Row]
    skipped: list[BadRow] = field(default_factory=list)
    max_bad: float = 0.01
    examined: int = 0
    """Rows whose audio was looked at: what a share in `max_bad` refers to."""
    _bad_audio: list[BadRow] = field(default_factory=list)
    _undecodable: set[str] = field(default_factory=set)

    def clips(self, rows: Sequence[Row] | None = None) -> Iterator[Clip]:
        """Decode lazily, one clip after the other (all rows if none are given).

        A row whose samples cannot be used is recorded in `skipped`, removed from `rows`, and left out.

        Raises:
            ManifestError: more rows are bad than `max_bad` allows.
        """
        for row in tuple(self.rows if rows is None else rows):
            if row.id in self._undecodable:
                continue
            try:
                clip = load_audio(row)
            except AudioError as error:
                self._leave_out(row, error.what)
            else:
                yield clip

    def only(self, rows: Sequence[Row]) -> Dataset:
        """Another data set of some of these rows."""
        return Dataset(self.manifests, list(rows), max_bad=self.max_bad, examined=len(rows))

    def info(self) -> DataInfo:
        """What was used, for the record; call it after decoding to have every skipped row in it."""
        speakers = {row.speaker for row in self.rows if row.speaker is not None}
        return DataInfo(
            manifests=self.manifests,
            clips=len(self.rows),
            seconds=round(sum(row.duration for row in self.rows), 3),
            speakers=len(speakers) or None,
            languages=sorted({row.lang for row in self.rows if row.lang}),
            skipped=self.skipped,
            audio_decoder=decoder_name(),
            resampler=resampler_name(),
            fingerprint=fingerprint(self.rows),
        )

    def _leave_out(self, row: Row, reason: str) -> None:
        bad = BadRow(manifest=row.manifest, line=row.line, reason=reason)
        self._undecodable.add(row.id)
        self._bad_audio.append(bad)
        self.skipped.append(bad)
        self.rows = [kept for kept in self.rows if kept.id != row.id]
        badrows.warn([bad], self.examined)
        badrows.refuse_too_many(self._bad_audio, self.examined, self.max_bad)


def fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 over path, offset, duration and text of the rows, in order; the same on every machine.

    Of an absolute path only the file name counts.
    """
    digest = hashlib.sha256()
    for row in rows:
        path = PurePosixPath(str(row.fields.get("audio_filepath", row.audio.name)))
        name = path.name if path.is_absolute() else path.as_posix()
        line = json.dumps([name, f"{row.offset:.3f}", f"{row.duration:.3f}", row.text])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
