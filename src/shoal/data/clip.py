"""One utterance, before and after its audio is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.data_names import label_of

SAMPLE_RATE = 16_000
"""Everything is resampled to this rate (Hz), mono."""

AudioBytes = Callable[[], bytes]
"""Gives the encoded audio (the content of a WAV, FLAC … file)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One manifest row that passed its checks; the audio is still on disk.

    `fields` keeps every key of the row, known or not, as it stood in the manifest.
    """

    id: str
    audio: Path
    duration: float
    """Seconds, after `offset`."""
    offset: float = 0.0
    """Seconds into the file at which the utterance starts."""
    text: str = ""
    lang: str | None = None
    speaker: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    manifest: str = ""
    line: int = 0
    blob: AudioBytes | None = field(default=None, compare=False, repr=False)
    """Fetches the encoded audio where it does not lie in a file of its own (a dataset table); `audio` then
    is only its name."""

    @property
    def place(self) -> str:
        """Where the row stands: `manifest:line`."""
        return f"{self.manifest}:{self.line}"

    @property
    def data(self) -> str:
        """Short name of the data set that the row belongs to."""
        return label_of(self.manifest)

    @property
    def audio_name(self) -> str:
        """The audio as the manifest names it, fit for a message."""
        name = str(self.fields.get("audio_filepath", self.audio))
        name = name if name.isprintable() else ascii(name)
        return name if len(name) <= 120 else f"…{name[-119:]}"


@dataclass(frozen=True, slots=True)
class Clip:
    """A row with its samples: float32, mono, 16 kHz, shape `(samples,)`, finite, in about [-1, 1]."""

    row: Row
    samples: npt.NDArray[np.float32]

    @property
    def id(self) -> str:
        """The row's id."""
        return self.row.id
