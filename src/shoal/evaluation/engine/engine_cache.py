"""Engines kept from window to window, so that their memory and their recorded graphs are used again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable

from torch import nn

from shoal.evaluation.engine.cache import supported
from shoal.evaluation.engine.run import Engine

KEPT = {"cpu": 1, "cuda": 4}
"""Engines at once: each holds a cache of keys and values; on CUDA making one again costs the recording of graphs."""


class EngineCache:
    """An engine for every system, made when it is first asked for; the one not used for longest goes first.

    Args:
        slots: rows at once, at most.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._kept: OrderedDict[Hashable, Engine] = OrderedDict()

    def get(self, system: Hashable, lm: nn.Module, device: str, *, eos_ids: Collection[int]) -> Engine | None:
        """The engine of a system; None if the cache of its model is of another kind.

        Args:
            system: tells one from another: the model and what is removed from it.
            lm: its language model, as it is now (inside `pruned`).
            device: the type of its device.
            eos_ids: tokens that end a row.
        """
        if system not in self._kept:
            if not supported(lm):
                return None
            # Where memory was too short for one system, it will be for the next.
            slots = min([self.slots, *(engine.slots for engine in self._kept.values())])
            while len(self._kept) >= KEPT.get(device, 1):
                self.slots = min(self.slots, self._kept.popitem(last=False)[1].slots)
            self._kept[system] = Engine(lm, eos_ids=eos_ids, slots=slots)
        self._kept.move_to_end(system)
        return self._kept[system]
