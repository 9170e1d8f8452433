"""Gradient importance: what the loss would rise by without a candidate, to first order; see `gate_gradients`.

`signed` estimates the rise itself. The others are meant for ranking, first the one that agrees best with ablation on
the reference model (`docs/measurement.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.measurement.metric_types import ImportanceMetric, ImportanceRequest, Quantity
from shoal.progress import report_progress

if TYPE_CHECKING:
    from shoal.measurement.importance import ImportanceSums
    from shoal.models.batch import PreparedBatch


def measure(request: ImportanceRequest) -> list[ImportanceSums]:
    """Of every block, and of every attention and MLP, whatever parts are asked for: they cost the same pass."""
    from shoal.measurement.gate_gradients import gate_gradients

    return gate_gradients(request.model, _batches(request), scope=request.options.scope)


def _batches(request: ImportanceRequest) -> Iterator[PreparedBatch]:
    done = 0
    report_progress(request.progress, "gradient", 0, len(request.data.rows))
    for batch in request.batches():
        yield batch
        done += len(batch.ids)
        report_progress(request.progress, "gradient", done, len(request.data.rows))


METRIC = ImportanceMetric(
    "gradient",
    (
        Quantity("clip-absolute", "absolute value of each clip", phrase="gradient importance, absolute per clip"),
        Quantity("squared", "square of each clip", phrase="gradient importance, squared per clip"),
        Quantity("absolute", "absolute value of each position", phrase="gradient importance, absolute per position"),
        Quantity("signed", "signed", phrase="signed gradient importance"),
    ),
    measure,
    additive=True,
)
