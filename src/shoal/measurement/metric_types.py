"""What a metric declares. Everything else (audit, select, search, trust, compare, report) goes by this.

There are two kinds. A cosine metric is a function of the cosines between the states at the two ends of every block; all
of them are measured by one forward pass. An importance says what the task loses without a candidate; each is measured
by a function of its own, if asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.progress import Progress
from shoal.terms import PARTS, SCOPES, Candidate, InputKind, Part, Scope

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.data import Dataset, Row
    from shoal.measurement.importance import ImportanceSums
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.statistics import Floats
    from shoal.tasks import Task


@dataclass(frozen=True)
class CosineMetric:
    """A function of the cosines at one position, averaged over positions.

    Args:
        name: on the command line and in files.
        title: in words, lower case.
        unit: of its numbers.
        values: cosines (N, L (L + 1) / 2), float64, in the order of `block_ends`, and L → (N, columns).
        per: a column for every block, in the same order, or for every layer (a block is then the sum of its layers).
        low_is_redundant: a low number means that little changes; else a high one does.
        scopes: positions it makes sense for.
    """

    name: str
    title: str
    unit: str
    values: Callable[[Tensor, int], Tensor]
    per: Literal["block", "layer"] = "block"
    low_is_redundant: bool = True
    scopes: tuple[Scope, ...] = SCOPES

    def columns(self, depth: int) -> int:
        """How many numbers it gives for a decoder of `depth` layers."""
        return depth if self.per == "layer" else depth * (depth + 1) // 2


@dataclass(frozen=True)
class Quantity:
    """One of the numbers that an importance gives.

    Args:
        name: in files.
        title: in words; `{unit}` stands for the unit.
        noun: heads a figure of it; the unit if empty.
        phrase: in a sentence, such as `signed gradient importance`; metric and quantity if empty.
        low_is_redundant: a low number means that little is lost; else a high one does.
    """

    name: str
    title: str
    noun: str = ""
    phrase: str = ""
    low_is_redundant: bool = True


@dataclass(frozen=True)
class ImportanceOptions:
    """What an importance is measured of, and how.

    Args:
        block_sizes: sizes of the blocks to leave out; None is every size.
        parts: what of the layers goes; blocks are of whole layers, parts of single ones.
        scope: whose tokens the loss is taken over.
        race: drop candidates that are surely worse.
        decode: the task's own score without each candidate too.
        seed: of the order of the clips in a race.
        batch_size: clips a forward pass.
    """

    block_sizes: tuple[int, ...] | None = (1,)
    parts: tuple[Part, ...] = ("layer",)
    scope: Scope = "response"
    race: bool = False
    decode: bool = False
    seed: int = 0
    batch_size: int = 16


@dataclass(frozen=True)
class ImportanceRequest:
    """What an importance is measured on.

    Args:
        model: unpruned.
        data: the clips.
        task: gives prompt and response.
        input: what stands in the audio slot.
        options: of what, and how.
        out: folder for what is worth keeping beside the audit.
        progress: called with (what, clips done, in all).
    """

    model: LoadedModel
    data: Dataset
    task: Task
    input: InputKind
    options: ImportanceOptions = ImportanceOptions()
    out: Path | None = None
    progress: Progress | None = None

    def batches(self, rows: Sequence[Row] | None = None) -> Iterator[PreparedBatch]:
        """The clips, or some of them, as batches with responses; bad audio leaves the data set on the way."""
        from shoal.decoder.batches import prepared_batches

        size = self.options.batch_size
        return prepared_batches(self.model, self.data, self.task, self.input, size, rows=rows)


@dataclass(frozen=True)
class ImportanceMetric:
    """What the task loses without a candidate.

    Args:
        name: on the command line and in files.
        quantities: what it gives, what plans are chosen by first.
        measure: sums of every quantity, of every part asked for.
        parts: what of a layer it can measure alone.
        scopes: whose tokens it can take the loss over.
        additive: a block that was not measured itself counts as the sum of its layers.
        measured: candidates are left out in earnest, so that other metrics are held against it.
        extras: which of the options `race` and `decode` it knows.
        depends_on: names of the options that its numbers depend on, beside the scope.
        of_any_layers: a function of any sets of layers (C,) → (C,), for strategies that measure again at every step;
            without one only what `measure` gives can be searched by.
    """

    name: str
    quantities: tuple[Quantity, ...]
    measure: Callable[[ImportanceRequest], list[ImportanceSums]]
    parts: tuple[Part, ...] = PARTS
    scopes: tuple[Scope, ...] = SCOPES
    additive: bool = False
    measured: bool = False
    extras: frozenset[str] = frozenset()
    depends_on: tuple[str, ...] = ()
    of_any_layers: Callable[[ImportanceRequest, Part], Callable[[Sequence[Candidate]], Floats]] | None = None

    def quantity(self, name: str) -> Quantity:
        """The quantity called `name`; one that files know and this metric no longer does stands under its name."""
        return next((known for known in self.quantities if known.name == name), Quantity(name, name))

    def option(self, quantity: Quantity) -> str:
        """What `--metric` calls it when plans are chosen by it, such as `ablation` or `ablation-kl`."""
        return self.name if quantity in self.quantities[:1] else f"{self.name}-{quantity.name}"


Metric = CosineMetric | ImportanceMetric
