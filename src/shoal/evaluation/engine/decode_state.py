"""The slots with everything that belongs to them: cache, mask, last tokens and positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shoal.evaluation.engine.cache import SlotCache

COLUMNS = 128
"""Widths are multiples of this."""
HEADROOM = {True: 64, False: 256}
"""Columns free after the live ones have been moved to the left, at least, where steps read all columns and where they
read only the live ones: they are moved at most once in so many steps."""


class DecodeState:
    """`slots` rows on one timeline; see `shoal.evaluation.engine.cache`.

    Args:
        lm: the model, as it is when this is made.
        slots: rows at most.
        device: of the model.
        tight: steps read all columns below `width`, so it is kept small.
    """

    def __init__(self, lm: nn.Module, slots: int, device: torch.device, *, tight: bool) -> None:
        self.slots, self.device, self._tight = slots, device, tight
        self.cache = SlotCache(lm, slots)
        self.lengths = [0] * slots
        """Live columns of every slot, 0 where it is free."""
        self.width = self.capacity = 0
        """Steps may write columns below `width`; tensors have `capacity`."""
        self.mask = torch.zeros((slots, 0), dtype=torch.long, device=device)
        self.tokens = torch.zeros((slots, 1), dtype=torch.long, device=device)
        """The last token of every row, not yet run."""
        self.positions = torch.zeros((slots, 1), dtype=torch.long, device=device)
        """Its position in the row."""

    @property
    def end(self) -> int:
        """The column that the next step writes."""
        return self.cache.columns.end

    @property
    def live(self) -> int:
        """Columns of the longest row."""
        return max(self.lengths)

    def reserve(self, *, prompt: int, steps: int) -> None:
        """Make sure that a prompt of `prompt` positions can end at `end`, and `steps` columns are free after it."""
        if self.end >= prompt and self.end + steps <= self.width:
            return
        live = self.live
        end = max(live, prompt)
        needed = _rounded(end + steps + HEADROOM[self._tight])
        wider = _rounded(self.end + steps)
        if live and end <= self.end and self.width < needed and wider <= self.capacity:
            self.width = wider
            return
        self._move(live, end, max(self.capacity, needed))
        self.width = needed if self._tight else self.capacity

    def _move(self, live: int, end: int, capacity: int) -> None:
        """Let the last `live` columns end at `end`."""
        source, target = self.end - live, end - live
        self.cache.move(source, target, live, capacity)
        moved = self.mask.new_zeros((self.slots, capacity))
        moved[:, target:end] = self.mask[:, source : self.end]
        if capacity == self.capacity:
            self.mask.copy_(moved)
        else:
            self.mask = moved
        self.capacity, self.cache.columns.end = capacity, end

    def fill(self, slots: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Prompts of `lengths` positions go into `slots`, ending at `end`; returns `slots` (k,) on the device."""
        index = torch.tensor(slots, device=self.device)
        columns = torch.arange(self.capacity, device=self.device)
        begins = self.end - torch.tensor(lengths, device=self.device)
        self.mask[index] = ((columns >= begins[:, None]) & (columns < self.end)).long()
        self.positions[index, 0] = torch.tensor(lengths, device=self.device)
        for slot, length in zip(slots, lengths, strict=True):
            self.lengths[slot] = length
        return index

    def free(self, slots: Sequence[int]) -> None:
        """Rows that are done; their slots may go on being run, for nothing."""
        for slot in slots:
            self.lengths[slot] = 0
        # A table of learned positions has an end that such a row must not pass.
        self.positions[torch.tensor(slots, device=self.device)] = 0

    def advance(self, steps: int) -> None:
        """Steps were run: every row is longer."""
        self.cache.columns.end += steps
        self.lengths = [length + steps if length else 0 for length in self.lengths]

    def copy_slot(self, source: int, target: int) -> None:
        """Move a row to a free slot."""
        self.cache.copy_slot(source, target, slice(self.end - self.lengths[source], self.end))
        for tensor in (self.mask, self.tokens, self.positions):
            tensor[target] = tensor[source]
        self.lengths[target], self.lengths[source] = self.lengths[source], 0


def _rounded(columns: int) -> int:
    return -(-columns // COLUMNS) * COLUMNS
