"""The rows that are used, the rows that are not, and the clips behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shoal.data import bad_rows
from shoal.data.audio import decoder_name, load_audio, resampler_name
from shoal.data.clip import Clip, Row
from shoal.data.rows import Rows, facts
from shoal.errors import AudioError
from shoal.schema import BadRow, DataInfo


@dataclass
class Dataset:
    """Rows that passed their checks, in manifest order.

    Attributes:
        manifests: the sources as the user named them.
        rows: the rows in use, read from their manifest when they are asked for; a row whose samples turn out bad
            leaves them when it is decoded.
        skipped: the rows left out, and why.
        max_bad: how many rows may be left out (a share below 1, or a count).
    """

    manifests: list[str]
    rows: Sequence[Row]
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
        # `rows` is replaced, never changed, when one leaves; what the caller gave may be changed by the caller.
        for row in self.rows if rows is None else tuple(rows):
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
        kept = list(rows) if isinstance(rows, list) else rows
        return Dataset(self.manifests, kept, max_bad=self.max_bad, examined=len(rows))

    def ids(self) -> list[str]:
        """The ids of the rows, in their order; no row is read for it."""
        return list(self.rows.ids()) if isinstance(self.rows, Rows) else [row.id for row in self.rows]

    def seconds(self) -> npt.NDArray[np.float64]:
        """(N,) durations of the rows, in their order; no row is read for it."""
        rows = self.rows
        return rows.seconds() if isinstance(rows, Rows) else np.array([row.duration for row in rows])

    @property
    def texts_checked(self) -> bool:
        """Whether it is known of every row that it has a text."""
        return isinstance(self.rows, Rows) and self.rows.texts_checked

    def info(self) -> DataInfo:
        """What was used, for the record; call it after decoding to have every skipped row in it."""
        known = self.rows.facts if isinstance(self.rows, Rows) else facts(self.rows)
        return DataInfo(
            manifests=self.manifests,
            clips=len(self.rows),
            seconds=known.seconds,
            speakers=known.speakers or None,
            languages=known.languages,
            skipped=self.skipped,
            audio_decoder=decoder_name(),
            resampler=resampler_name(),
            fingerprint=known.fingerprint,
        )

    def _leave_out(self, row: Row, reason: str) -> None:
        bad = BadRow(manifest=row.manifest, line=row.line, reason=reason)
        self._undecodable.add(row.id)
        self._bad_audio.append(bad)
        self.skipped.append(bad)
        if isinstance(self.rows, Rows):
            self.rows = self.rows.without(row.id)
        else:
            self.rows = [kept for kept in self.rows if kept.id != row.id]
        bad_rows.warn([bad], self.examined)
        bad_rows.refuse_too_many(self._bad_audio, self.examined, self.max_bad)
