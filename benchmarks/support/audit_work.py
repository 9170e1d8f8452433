"""The work that is timed: prepared batches in, the numbers of an audit out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from shoal import tasks
from shoal.data import Clip, Row
from shoal.data.batches import batches
from shoal.decoder.prepare import prepare
from shoal.measurement.collector import collect
from shoal.measurement.metrics import cosine_metrics
from shoal.measurement.sums import Sums, SumsWriter
from shoal.models.batch import PreparedBatch
from shoal.models.loading import LoadedModel
from shoal.schema import SCOPES


def prepared_rows(model: LoadedModel, rows: Sequence[Row], batch_size: int, *, response: bool) -> list[PreparedBatch]:
    """Padded, embedded batches of the transcripts; no audio is needed for them."""
    task = tasks.get("asr")
    return [
        prepare(
            model,
            [without_samples(row) for row in group],
            task,
            input="text",
            response=response,
            padding_side="right",
        )
        for group in batches(rows, max_clips=batch_size, max_seconds=float("inf"))
    ]


def without_samples(row: Row) -> Clip:
    """The text input needs no audio."""
    return Clip(row, np.zeros(0, dtype=np.float32))


@torch.inference_mode()
def forward(model: LoadedModel, prepared: Sequence[PreparedBatch]) -> None:
    """The plain forward pass, with logits; without a cache, which would only slow it down."""
    for batch in prepared:
        model.model(input_ids=batch.token_ids.clamp(min=0), attention_mask=batch.attention_mask, use_cache=False)


def audit_sums(model: LoadedModel, prepared: Sequence[PreparedBatch]) -> Sums:
    """The audit's one pass."""
    writer = SumsWriter(len(model.layers))
    for item in collect(model.decoder, model.layers, prepared):
        writer.add(item)
    return writer.finish([None] * len(writer.utterances))


def numbers(sums: Sums) -> list[Any]:
    """Every block and layer in every scope that has positions, both metrics."""
    return [sums.mean(scope, metric.name) for scope in SCOPES for metric in cosine_metrics()]
