"""What the encoder and projector gave for a clip, kept while there is room: plans and inputs share it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from shoal.data.clip import Clip

ROOM = 256 * 2**20
"""Bytes kept at most; a clip takes about 0.25 MB a minute in a small model, 2.5 MB in an 8B."""


@dataclass
class AudioCache:
    """Projected audio by content of the clip; the oldest leave first.

    The encoder does not depend on which decoder layers are there, so an audit, an evaluation of many plans and a
    comparison in one process need it once a clip. Memory is bounded by `room`, not by the number of clips.
    """

    room: int = ROOM
    _vectors: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def get(self, clips: Sequence[Clip], encode: Callable[[list[Clip]], list[Tensor]]) -> list[Tensor]:
        """Projected audio (n, d) of each clip; `encode` is asked for those that are not here, in one batch."""
        keys = [hashlib.sha256(clip.samples.tobytes()).digest() for clip in clips]
        missing = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in self._vectors}
        fresh = dict(zip(missing, encode(list(missing.values())), strict=True)) if missing else {}
        vectors_of_clips = [fresh[key] if key in fresh else self._vectors[key] for key in keys]
        for key, vectors in fresh.items():
            self._keep(key, vectors)
        return vectors_of_clips

    def clear(self) -> None:
        """Forget everything: whoever times the encoder must not be served from here."""
        self._vectors.clear()
        self._bytes = 0

    def _keep(self, key: bytes, vectors: Tensor) -> None:
        own = vectors.detach().clone()  # a view would keep the whole batch alive
        self._vectors[key] = own
        self._bytes += own.nbytes
        while self._bytes > self.room:
            _, oldest = self._vectors.popitem(last=False)
            self._bytes -= oldest.nbytes
