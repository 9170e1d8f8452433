"""Batches for a decoder: embedded positions, each marked with what it is, put together row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.schema import SCOPES, Scope

if TYPE_CHECKING:
    # Not before it is used: families have kinds of positions, and reports ask families without loading torch.
    import torch
    from torch import Tensor


class Kind(IntEnum):
    """What stands at a position."""

    PAD = 0
    AUDIO = 1
    """Projected audio, or the transcript that takes its place in the text input."""
    PROMPT = 2
    """Template and instruction."""
    TEXT = 3
    """The response, teacher-forced."""
    BEFORE = 4
    """The one token that a text is read after which stands alone: no prompt, it says nothing."""


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

        `last` is the last position before the response; without a response, the last position. Of a text that stands
        alone it is the last token (Gromov et al., arXiv 2403.17887, section 3).
        """
        if scope == "all":
            return self.kinds != Kind.PAD
        if scope == "last":
            before = (self.kinds == Kind.AUDIO) | (self.kinds == Kind.PROMPT)
            before |= (self.kinds != Kind.PAD) & stands_alone(self.kinds)
            return before & (before.flip(1).cumsum(1).flip(1) == 1)
        return self.kinds == {"audio": Kind.AUDIO, "prompt": Kind.PROMPT, "response": Kind.TEXT}[scope]

    def scopes(self) -> Tensor:
        """(B, T, 5) bool: `scope` for every entry of `SCOPES`, in that order."""
        import torch

        return torch.stack([self.scope(scope) for scope in SCOPES], dim=-1)

    def to(self, device: torch.device | str) -> PreparedBatch:
        """The same batch on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("embeds", "kinds", "token_ids")}
        return replace(self, **tensors, call=on_device(self.call, device), inputs=on_device(self.inputs, device))


def stands_alone(kinds: Tensor) -> Tensor:
    """(B, T) → (B, 1) bool: the rows that hold a text alone."""
    return (kinds == Kind.BEFORE).any(1, keepdim=True)


def on_device(
    values: Mapping[str, Any], device: torch.device | str, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """`values` with their tensors on a device; floating-point ones in `dtype`, if one is given."""
    from torch import Tensor

    return {
        name: value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row of a batch, unpadded: token ids (n,) and what each of them is (n,)."""

    ids: Tensor
    kinds: Tensor

    def then(self, ids: Sequence[int], kind: Kind) -> TokenRow:
        """This, and `ids` after it."""
        return self.replaced(len(self.ids), len(self.ids), ids, kind)

    def replaced(self, start: int, stop: int, ids: Sequence[int], kind: Kind) -> TokenRow:
        """This, with `ids` in the place of positions `start … stop-1`."""
        import torch

        new = torch.tensor(list(ids), dtype=torch.long)
        kinds = [self.kinds[:start], torch.full_like(new, int(kind)), self.kinds[stop:]]
        return TokenRow(torch.cat([self.ids[:start], new, self.ids[stop:]]), torch.cat(kinds))


STACKED = frozenset({"inputs_embeds", "attention_mask"})
"""What a decoder may be called with, so that calls for single clips can be put together."""


def stacked(singles: Sequence[PreparedBatch], padding_side: str) -> PreparedBatch:
    """One batch of B rows from B batches of one row, padded to the longest.

    Args:
        singles: batches of one row, of the same model.
        padding_side: `left` or `right`.

    Raises:
        ModelError: the decoder is called with more than embeddings and a mask.
    """
    if more := sorted({name for single in singles for name in single.call} - STACKED):
        raise ModelError(
            f"clips that are encoded alone cannot be put together: its decoder is called with {', '.join(more)}",
            where=", ".join(single.ids[0] for single in singles),
            fix="measure one clip at a time",
        )
    left = padding_side == "left"
    kinds = padded([single.kinds for single in singles], left=left, value=int(Kind.PAD))
    embeds = padded([single.embeds for single in singles], left=left, value=0)
    return PreparedBatch(
        [name for single in singles for name in single.ids],
        embeds,
        kinds,
        padded([single.token_ids for single in singles], left=left, value=-1),
        call={"inputs_embeds": embeds, "attention_mask": (kinds != Kind.PAD).long()},
        ends=all(single.ends for single in singles),
    )


def padded(tensors: Sequence[Tensor], *, left: bool, value: int) -> Tensor:
    """(1, …) each → (B, …), every dimension as long as the longest, `value` where a row is shorter.

    Args:
        tensors: B tensors with as many dimensions.
        left: whether `value` stands before what a row has, not after it.
        value: what to fill with.
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    whole = tensors[0].new_full((len(tensors), *shape[1:]), value)
    for row, tensor in zip(whole, tensors, strict=True):
        spans = [slice(-size, None) if left else slice(size) for size in tensor.shape[1:]]
        row[tuple(spans)] = tensor[0]
    return whole
