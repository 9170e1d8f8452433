"""What each peer is asked to do; runs in the peer's own environment and imports nothing of Shoal.

Nothing of the peers is copied here: each job calls the installed package (or, for PruneMe, which is no
package, the checkout it is given), on token batches that Shoal prepared.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import torch

Batch = dict[str, torch.Tensor]
"""`input_ids` and `attention_mask`, (B, T) int64, right-padded."""


def told(error: BaseException) -> str:
    """An error in one line, after the one that it hides, if any."""
    this = f"{type(error).__name__}: {error}".removesuffix(": ")
    return this if error.__context__ is None else f"{told(error.__context__)}, then {this}"


class Job(Protocol):
    """One peer's measurement."""

    def run(self) -> None:
        """Do it once; this is what is timed."""

    def result(self) -> dict[str, Any]:
        """What it found, as JSON."""


class Optipfair:
    """`analyze_layer_importance`: block influence of every single layer."""

    def __init__(self, model: Any, batches: list[Batch], options: dict[str, Any]) -> None:
        del options
        self.model, self.batches = model, batches
        self.scores: dict[int, float] = {}

    def run(self) -> None:
        """One pass over the padded batches."""
        from optipfair import analyze_layer_importance

        self.scores = analyze_layer_importance(self.model, self.batches, show_progress=False)

    def result(self) -> dict[str, Any]:
        """Influence by layer."""
        return {"influence": [float(self.scores[layer]) for layer in sorted(self.scores)]}


class PruneMe:
    """PruneMe's functions in float32, in the order in which its script calls them.

    The script itself loads every model in 4 bits with bitsandbytes; there is no switch. Its steps: hidden
    states of the whole model, the last real token of each row, the first entry dropped, then the distances
    for one block size, averaged over the batches.
    """

    def __init__(self, model: Any, batches: list[Batch], options: dict[str, Any]) -> None:
        folder = Path(options["checkout"]) / "compute_block_similarity"
        if not (folder / "utils.py").is_file():
            raise FileNotFoundError(f"{folder} has no utils.py: not a checkout of PruneMe")
        sys.path.insert(0, str(folder))
        self.model, self.batches, self.block = model, batches, int(options["block"])

    def run(self) -> None:
        """What one run of its script measures: one block size."""
        self._distances([self.block])

    def result(self) -> dict[str, Any]:
        """Row n-1: mean distance of blocks of n layers, the first of them starting at layer 1."""
        return {"rows": self._distances(range(1, self.model.config.num_hidden_layers))}

    @torch.no_grad()
    def _distances(self, sizes: Any) -> list[list[float]]:
        from utils import compute_block_distances, get_last_non_padded_tokens

        found: list[list[list[float]]] = [[] for _ in sizes]
        for batch in self.batches:
            states = self.model(**batch, output_hidden_states=True).hidden_states
            last = get_last_non_padded_tokens(states, batch["attention_mask"])[1:]
            for number, size in enumerate(sizes):
                found[number].append(compute_block_distances(last, size))
        return [torch.tensor(rows, dtype=torch.float64).mean(0).tolist() for rows in found]


class ShortTransformers:
    """`ShortTransformer.analyse_layers`: angular distance of all blocks at the last token, clip by clip."""

    def __init__(self, model: Any, batches: list[Batch], options: dict[str, Any]) -> None:
        del options
        from short_transformers import ShortTransformer

        self.batches = batches
        self.clips = [
            {"input_ids": ids[mask.bool()][None], "attention_mask": mask[mask.bool()][None]}
            for batch in batches
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        self.model = ShortTransformer.from_model(model)
        self.distances: Any = None

    def run(self) -> None:
        """One pass over the clips; its tokenizer argument hands out the tokens that are already there."""
        rows = [{"text": number} for number in range(len(self.clips))]
        self.distances = self.model.analyse_layers(rows, tokenizer=self._tokens, key="text", limit=len(rows))

    def result(self) -> dict[str, Any]:
        """Its matrix, its choice for every block size that it allows, and what it says to a batch of two."""
        from short_transformers.utils import get_best_pruning_start

        sizes = range(1, len(self.distances))
        starts = [int(get_best_pruning_start(self.distances, block_size=size)) for size in sizes]
        return {"matrix": self.distances.tolist(), "starts": starts, "batched": self._batched()}

    def _tokens(self, number: int, **_: Any) -> Any:
        from transformers import BatchEncoding

        return BatchEncoding(self.clips[number])

    @torch.no_grad()
    def _batched(self) -> str:
        try:
            self.model(**self.batches[0])
        except Exception as error:
            return told(error)
        return "works"


JOBS: dict[str, Any] = {"optipfair": Optipfair, "pruneme": PruneMe, "short-transformers": ShortTransformers}
