"""Ablation: what the task truly loses without a candidate.

Settings and help read this file, so it imports what computes (numpy, torch) only when it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shoal.measurement.metric_types import ImportanceMetric, ImportanceRequest, Quantity
from shoal.terms import PARTS, Part

if TYPE_CHECKING:
    from shoal.measurement.importance import ImportanceSums
    from shoal.statistics import Floats
    from shoal.terms import Candidate


def measure(request: ImportanceRequest) -> list[ImportanceSums]:
    """Loss and KL of every part that is asked for, and the task's own score by decoding if that is asked for."""
    from shoal.measurement.ablation import ablate
    from shoal.measurement.blocks import block_candidates

    options, depth = request.options, len(request.model.layers)
    items: list[ImportanceSums] = []
    for part in options.parts:
        # Parts are of single layers.
        candidates = block_candidates(depth, options.block_sizes if part == "layer" else (1,))
        losses = ablate(request, candidates, part)
        items += losses
        if options.decode and request.input == "speech":
            from shoal.measurement.ablation_by_decoding import decode_without

            items.append(decode_without(request, losses[0]))
    return items


def _loss_measure(request: ImportanceRequest, part: Part) -> Callable[[Sequence[Candidate]], Floats]:
    from shoal.measurement.ablation import LossMeasure

    return LossMeasure(request, part)


METRIC = ImportanceMetric(
    "ablation",
    (
        Quantity("loss", "rise of the loss", noun="Loss"),
        Quantity("kl", "KL from the full model", noun="KL"),
        Quantity("score", "rise of {unit}"),
    ),
    measure,
    parts=PARTS,
    measured=True,
    extras=frozenset({"race", "decode"}),
    depends_on=("block_sizes", "parts", "race", "decode"),
    of_any_layers=_loss_measure,
)
