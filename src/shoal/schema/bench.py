"""What systems cost: latency and memory."""

from __future__ import annotations

from typing import Literal

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.record import Estimate, SystemRecord


class SystemBench(SystemRecord):
    """What one system costs; ratios are pruned / unpruned (below 1 = saved).

    A ratio of times is the mean over clips of the median over rounds of the ratio within a round: it is not the ratio
    of the mean times.
    """

    parameters: int
    decoder_parameters: int
    checkpoint_bytes: int
    peak_memory_bytes: int | None = None
    encode_seconds: Estimate
    """Encoder and projector, per clip."""
    prefill_seconds: Estimate
    """Per clip."""
    decode_seconds: Estimate
    """Per generated token and clip, at a fixed number of tokens."""
    total_seconds: Estimate
    """Encode + prefill + decode of the fixed number of tokens, per clip."""
    prefill_ratio: Estimate | None = None
    decode_ratio: Estimate | None = None
    total_ratio: Estimate | None = None
    parameter_ratio: float | None = None
    checkpoint_ratio: float | None = None
    peak_memory_ratio: float | None = None


class Bench(Document):
    """Latency and memory of a model and of plans over it, interleaved on the same clips."""

    kind: Literal["bench"] = "bench"
    model: ModelInfo
    data: DataInfo
    clips: int = 0
    """How many of the data set's clips were timed."""
    repeats: int
    batch_size: int
    new_tokens: int
    level: float = 0.95
    systems: list[SystemBench]
