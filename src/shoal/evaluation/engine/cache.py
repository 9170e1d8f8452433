"""A key/value cache with slots, for stock model classes.

All slots share one timeline: a step writes the keys and values of all rows at the same column `end`. A row is
contiguous and ends there, however long it is, so a new row is written at the columns before `end`. What is left of it
is masked. Rotary positions are applied before keys are cached, so a row's columns say nothing about its positions::

    column   0 1 2 3 4 5 6 7 8 | end = 9
    slot 0   . . a a a a a a a | ← the next step writes here, in all slots
    slot 1   b b b b b b b b b |
    slot 2   . . . . . . c c c |

Layers with a sliding window keep all columns: the model masks what is outside, by the distance of columns, which is the
distance of positions within a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


def supported(lm: nn.Module) -> bool:
    """Whether the cache of `lm` consists of plain and sliding attention layers, each with its own keys and values.

    Not so where attention works in chunks (their borders depend on the column), where layers share keys and values,
    and where some are not attention at all.
    """
    config: Any = lm.config
    text = config.get_text_config(decoder=True)
    if getattr(text, "attention_chunk_size", None) is not None:
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@dataclass(slots=True)
class ColumnRange:
    """Where the next forward pass writes and what it reads; all layers share it."""

    start: int = 0
    """First column that a step reads."""
    end: int = 0
    """The column a step writes; the column after the last one of a prefilled row."""
    rows: int = 0
    """A step runs slots 0 … rows-1."""
    slots: Tensor | None = None
    """(k,) the slots that a prefill fills; None for a step."""
    column: Tensor | None = None
    """(1,) the column a step writes, as a tensor: the step is then the same for every column, and reads all columns
    before `width`."""
    width: int = 0


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, (slots, heads, capacity, head size), written in columns."""

    def __init__(self, columns: ColumnRange, slots: int, *, sliding: bool) -> None:
        super().__init__()
        self.columns, self.slots, self.is_sliding = columns, slots, sliding
        self.capacity = 0

    @property
    def is_compileable(self) -> bool:
        """With a column in a tensor, masks are always made, whatever is in them: nothing waits for the device."""
        return self.columns.column is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate; zeros, because what is masked is still multiplied."""
        self.keys, self.values = (self._zeros(states, self.capacity) for states in (key_states, value_states))
        self.is_initialized = True

    def _zeros(self, like: Tensor, capacity: int) -> Tensor:
        return like.new_zeros((self.slots, like.shape[1], capacity, like.shape[3]))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write; returns what the queries may read."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None  # noqa: PT018
        columns = self.columns
        if columns.slots is not None:
            written = slice(columns.end - key_states.shape[2], columns.end)
            self.keys[columns.slots, :, written] = key_states
            self.values[columns.slots, :, written] = value_states
            return key_states, value_states
        keys, values = self.keys[: columns.rows], self.values[: columns.rows]
        if columns.column is not None:
            keys.index_copy_(2, columns.column, key_states)
            values.index_copy_(2, columns.column, value_states)
            return keys[:, :, : columns.width], values[:, :, : columns.width]
        keys[:, :, columns.end : columns.end + 1] = key_states
        values[:, :, columns.end : columns.end + 1] = value_states
        return keys[:, :, columns.start : columns.end + 1], values[:, :, columns.start : columns.end + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns are read, and the first one's number."""
        if self.columns.slots is not None:
            return query_length, 0
        if self.columns.column is not None:
            return self.columns.width, 0
        return self.columns.end + 1 - self.columns.start, 0

    def get_seq_length(self) -> Any:
        """The query's column, counted from the first that is read; a tensor where the column is one."""
        if self.columns.slots is not None:
            return 0
        return self.columns.end - self.columns.start if self.columns.column is None else self.columns.column

    def get_max_length(self) -> int:
        """None is known."""
        return -1

    def move(self, source: int, target: int, length: int, capacity: int) -> None:
        """Move `length` columns from `source` to `target`; a new capacity gives new tensors."""
        self.capacity, fresh = capacity, capacity != self.capacity
        if not self.is_initialized:
            return
        assert self.keys is not None and self.values is not None  # noqa: PT018
        for name, old in (("keys", self.keys), ("values", self.values)):
            live = old[:, :, source : source + length]
            new = self._zeros(old, capacity) if fresh else old
            new[:, :, target : target + length] = live if fresh else live.clone()
            setattr(self, name, new)

    def copy_slot(self, source: int, target: int, columns: slice) -> None:
        """Let slot `target` hold what slot `source` holds."""
        for states in (self.keys, self.values):
            if states is not None:
                states[target, :, columns] = states[source, :, columns]


class SlotCache(Cache):
    """The cache of `slots` rows for a model as it is when this is made (inside `pruned`, the pruned one)."""

    def __init__(self, lm: nn.Module, slots: int) -> None:
        self.columns = ColumnRange()
        stock: Any = DynamicCache(config=lm.config).layers
        layers = [
            SlotLayer(self.columns, slots, sliding=isinstance(layer, DynamicSlidingWindowLayer)) for layer in stock
        ]
        super().__init__(layers=layers)

    def move(self, source: int, target: int, length: int, capacity: int) -> None:
        """See `SlotLayer.move`."""
        for layer in self.layers:
            layer.move(source, target, length, capacity)

    def copy_slot(self, source: int, target: int, columns: slice) -> None:
        """See `SlotLayer.copy_slot`."""
        for layer in self.layers:
            layer.copy_slot(source, target, columns)
