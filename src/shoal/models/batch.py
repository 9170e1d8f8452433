"""What a model eats: embedded positions, each marked with what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from shoal.schema import SCOPES, Scope


class Kind(IntEnum):
    """What stands at a position."""

    PAD = 0
    AUDIO = 1
    """Projected audio, or the transcript that takes its place in the text input."""
    PROMPT = 2
    """Template and instruction."""
    TEXT = 3
    """The response, teacher-forced."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A padded batch, embedded, ready for the decoder (no encoder needed any more).

    Shapes: B utterances, T positions, d the decoder's hidden size. Padding may be left or right.
    """

    ids: list[str]
    embeds: Tensor
    """(B, T, d), the model's dtype; (B, T, 0) where the decoder is not called with embeddings (see `call`)."""
    kinds: Tensor
    """(B, T) uint8, values of `Kind`."""
    token_ids: Tensor
    """(B, T) int64; -1 where no token stands (audio, padding)."""
    call: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of the decoder as the model's own forward makes them; empty: embeddings, mask, positions."""
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of the whole model, where the batch was made by its own processor."""
    ends: bool = True
    """Whether the end of a response is due after it; not after a text that stands alone."""

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) int64: 1 where something stands."""
        return (self.kinds != Kind.PAD).long()

    @property
    def position_ids(self) -> Tensor:
        """(B, T) int64: 0, 1, 2 … over the real positions of each row (0 on padding)."""
        mask = self.attention_mask
        return (mask.cumsum(1) - 1).clamp(min=0) * mask

    def scope(self, scope: Scope) -> Tensor:
        """(B, T) bool: the positions that count in `scope`.

        `last` is the last position before the response; without a response, the last position.
        """
        if scope == "all":
            return self.kinds != Kind.PAD
        if scope == "last":
            before = (self.kinds == Kind.AUDIO) | (self.kinds == Kind.PROMPT)
            return before & (before.flip(1).cumsum(1).flip(1) == 1)
        wanted = {"audio": Kind.AUDIO, "prompt": Kind.PROMPT, "text": Kind.TEXT}[scope]
        return self.kinds == wanted

    def scopes(self) -> Tensor:
        """(B, T, 5) bool: `scope` for every entry of `SCOPES`, in that order."""
        return torch.stack([self.scope(scope) for scope in SCOPES], dim=-1)

    def to(self, device: torch.device | str) -> PreparedBatch:
        """The same batch on another device."""
        return PreparedBatch(
            self.ids,
            self.embeds.to(device),
            self.kinds.to(device),
            self.token_ids.to(device),
            _to(self.call, device),
            _to(self.inputs, device),
            self.ends,
        )


def _to(values: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}
