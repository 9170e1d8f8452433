"""A step in parts that fit into memory (micro-batches): cut, halved where memory runs out, put together ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from shoal.training.examples import Batches
from shoal.training.sampling import Ints, SampledClips


def micro_batches(lengths: Ints, *, positions: int) -> list[slice]:
    """Consecutive clips that pass through the decoder together.

    Args:
        lengths: (B,) positions of each clip, ascending.
        positions: padded positions (longest × clips) of a micro-batch at most; a longer clip is one by itself.
    """
    slices, first = [], 0
    for at in range(1, len(lengths) + 1):
        if at == len(lengths) or int(lengths[at]) * (at + 1 - first) > positions:
            slices.append(slice(first, at))
            first = at
    return slices


def halved(slices: Sequence[slice]) -> list[slice]:
    """Every micro-batch of more than one clip as two: what is tried where memory ran out."""
    halves = []
    for part in slices:
        middle = (part.start + part.stop) // 2
        alone = part.stop - part.start == 1
        halves += [part] if alone else [slice(part.start, middle), slice(middle, part.stop)]
    return halves


class TrainingSteps(Dataset[dict[str, Any]]):
    """Step k as this process takes it: its clips, cut into micro-batches and put together.

    Where processes go `together`, each makes as many passes as the one with most micro-batches: every pass through
    sharded parameters is one of all processes. The passes beyond its own are `idle`.

    Args:
        batches: puts them together.
        sampled: the clips of every step.
        rank: of this process.
        world: how many processes there are.
        positions: see `micro_batches`.
        together: see above.
    """

    def __init__(
        self, batches: Batches, sampled: SampledClips, rank: int, world: int, positions: int, *, together: bool
    ) -> None:
        self._batches, self._sampled, self._rank, self._world = batches, sampled, rank, world
        self._positions, self._together = positions, together

    def __len__(self) -> int:
        return len(self._sampled.examples)

    def __getitem__(self, step: int) -> dict[str, Any]:
        examples, variants = self._sampled.share(step, self._rank, self._world)
        slices = self._slices(step, self._rank)
        every = range(self._world) if self._together else ()
        passes = max((len(self._slices(step, rank)) for rank in every), default=len(slices))
        return {
            "step": step,
            "examples": examples,
            "variants": variants,
            "slices": slices,
            "batches": [self._batches.collate(examples[part], variants[part]) for part in slices],
            "idle": passes - len(slices),
        }

    def _slices(self, step: int, rank: int) -> list[slice]:
        examples, _ = self._sampled.share(step, rank, self._world)
        return micro_batches(self._batches.lengths[examples], positions=self._positions)
