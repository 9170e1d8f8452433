"""Training examples, and what every way to make batches of them has in common.

There are two ways. `CachedBatches` is for Shoal's own SpeechLLM: the states of its encoder lie on disk, a batch is put
together by index arithmetic, and the encoder is never run. `ProcessorBatches` is for every other model: its own
processor and forward pass make the decoder's inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shoal.data import fingerprint
from shoal.training.sampling import Ints

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

Batch = dict[str, Any]
"""What `Batches.collate` makes: tensors, and what is no tensor and stays on the CPU."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A clip and what is asked of it."""

    row: Row
    task: Task
    data: Dataset
    source: int = 0
    """Which source it came from, 0 …"""


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """What one pass through the decoder takes, and where its loss is. B clips, T positions, d the hidden size."""

    call: dict[str, Any]
    """Keyword arguments of the decoder."""
    real: Tensor
    """(B, T) bool: positions where something stands."""
    index: Tensor
    """(M,) int64: where each target is predicted, in the flattened (B · T) positions."""
    tokens: Tensor
    """(M,) int64: the targets; -1 stands for any of the model's end tokens."""
    rows: Tensor
    """(M,) int64: the clip of each target."""
    vectors: Tensor | None = None
    """(N, d): what the projector gave for all clips, one after the other; None where it is not to be had."""
    counts: Tensor | None = None
    """(B,) int64: how many of them each clip has."""


class Batches(ABC):
    """Examples, and the batches that are made of them."""

    examples: Sequence[TrainingExample]
    lengths: Ints
    """(E,) positions of each example, exact or nearly so: batches are made by it."""
    targets: Ints
    """(E,) target tokens of each example, exact or nearly so: the loss of a step is divided by their sum."""
    ctc_tokens: Ints
    """(E,) tokens of each example that a CTC loss is taken over."""
    variants: int = 1
    """How many variants of each example there are."""

    @abstractmethod
    def collate(self, examples: Ints, variants: Ints) -> Batch:
        """Put a batch together on the CPU.

        Args:
            examples: (B,) which ones.
            variants: (B,) which variant of each.
        """

    @abstractmethod
    def inputs(self, loaded: LoadedModel, batch: Batch) -> DecoderInputs:
        """The decoder's inputs, with a graph to the projector's parameters where these are trained.

        Args:
            loaded: the model whose projector and embeddings are used: the student, or its teacher.
            batch: from `collate`, where the model runs.
        """

    @property
    def fingerprint(self) -> str:
        """What its clips are, see `shoal.data.fingerprint`."""
        return fingerprint([example.row for example in self.examples])

    def names(self, examples: Ints) -> list[str]:
        """Ids of the clips, for messages."""
        return [self.examples[index].row.id for index in examples.tolist()]


def ragged(starts: Ints, counts: Ints) -> Ints:
    """`[s, s+1, … s+c-1]` for every start s and count c, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - counts), counts) + np.arange(total)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
