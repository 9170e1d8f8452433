"""Encoder states on disk: one file for each key, which is whole or not there.

::

    folder/3f/3f0c….npy     (frames, d_enc), in a folder of its key's first two digits

A file is written under a temporary name and renamed. So a kill loses no more than the states that were being computed,
any number of processes may write the same key, and there is nothing to mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import FileFormatError
from shoal.schema.files import replaced

States = npt.NDArray[Any]
"""(frames, d_enc), float16 or float32."""


@dataclass(frozen=True, slots=True)
class StateRef:
    """The first `frames` frames of the state under `key`."""

    key: str
    frames: int


class StateFiles:
    """The states in one folder.

    Args:
        folder: need not exist yet.
        size: d_enc.
        dtype: float16 or float32.
    """

    def __init__(self, folder: Path, size: int, dtype: npt.DTypeLike) -> None:
        self.folder, self.size, self.dtype = folder, size, np.dtype(dtype)
        self._frames: dict[str, int] = {}

    def get(self, key: str) -> StateRef | None:
        """The whole state; None if it is not there, or its file is damaged."""
        if key not in self._frames:
            try:
                # Reads the header, and refuses a file that is shorter than it says, as a power cut may leave one.
                state = np.load(self.path(key), mmap_mode="r")
            except (OSError, ValueError, EOFError):
                return None
            self._frames[key] = len(state)
        return StateRef(key, self._frames[key])

    def read(self, refs: Sequence[StateRef]) -> States:
        """The states one after the other, (sum of frames, d_enc), as one new array.

        Raises:
            FileFormatError: a file is gone or was cut off since it was looked up.
        """
        return np.concatenate([np.empty((0, self.size), self.dtype), *map(self._read, refs)])

    def _read(self, ref: StateRef) -> States:
        try:
            state: States = np.load(self.path(ref.key))
        except (OSError, ValueError, EOFError):
            raise FileFormatError(
                "the cached encoder states are gone or cut off",
                where=str(self.path(ref.key)),
                fix="run again, what is missing is computed anew",
            ) from None
        return state[: ref.frames]

    def write(self, key: str, state: States) -> None:
        """Keep a state (frames, d_enc).

        Raises:
            FileFormatError: the folder cannot be written, or its disk is full.
        """
        with replaced(self.path(key), fix="choose another folder") as file:
            np.save(file, state.astype(self.dtype, copy=False))
        self._frames[key] = len(state)

    def path(self, key: str) -> Path:
        """The file of a state."""
        return self.folder / key[:2] / f"{key}.npy"
