"""Seconds to encode, to prefill and to decode, with all systems taking turns.

A machine's speed drifts while it is measured. Therefore the systems are interleaved: every clip is embedded
once a round and then goes through all systems, in an order that rotates; and a ratio compares times that
were taken moments apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.decoder.prepare import prepare
from shoal.evaluation.generate import clock, greedy
from shoal.pruning.in_memory import pruned
from shoal.schema import Estimate
from shoal.statistics import Units, make_resampler, mean_bounds

if TYPE_CHECKING:
    from shoal.data import Clip
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task

Floats = npt.NDArray[np.float64]
Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a clip, for C batches and K rounds; the first axis of all but `encode` is the system."""

    encode: Floats
    """(C, K): encoder, projector and embedding; the same for all systems, so measured once for all."""
    prefill: Floats
    """(S, C, K): one forward pass over the whole input."""
    token: Floats
    """(S, C, K): each token after the first."""
    total: Floats
    """(S, C, K): encode, prefill and all tokens."""


def time_systems(
    loaded: LoadedModel,
    batches: Sequence[Sequence[Clip]],
    task: Task,
    removed: Sequence[Sequence[int] | Plan],
    *,
    repeats: int,
    new_tokens: int,
    step: Step = lambda: None,
) -> Timings:
    """Time every system on every batch, `repeats` times, after a pass over the first batch to warm up.

    Args:
        loaded: the unpruned model.
        batches: C lists of clips.
        task: what is asked.
        removed: for each of S systems the layers it goes without, or its plan.
        repeats: rounds K.
        new_tokens: tokens to decode for every clip, at least 2; end tokens do not end it.
        step: called after every batch of every round.
    """
    shape = (len(removed), len(batches), repeats)
    encode, prefill, decode = np.zeros(shape[1:]), np.zeros(shape), np.zeros(shape)
    _one_round(loaded, batches[0], task, removed, new_tokens, first=0)
    for rnd in range(repeats):
        for index, clips in enumerate(batches):
            seconds, times = _one_round(loaded, clips, task, removed, new_tokens, first=rnd + index)
            encode[index, rnd] = seconds
            prefill[:, index, rnd], decode[:, index, rnd] = times.T
            step()
    clips_in = np.array([len(clips) for clips in batches])[:, None]
    total = (encode + prefill + decode) / clips_in
    return Timings(encode / clips_in, prefill / clips_in, decode / clips_in / (new_tokens - 1), total)


def _one_round(
    loaded: LoadedModel,
    clips: Sequence[Clip],
    task: Task,
    removed: Sequence[Sequence[int] | Plan],
    new_tokens: int,
    *,
    first: int,
) -> tuple[float, Floats]:
    """Seconds to embed a batch, and (S, 2) to prefill and decode it, beginning with system `first`."""
    loaded.audio_cache.clear()
    start = clock(loaded.device)
    batch = prepare(loaded, clips, task, input="speech", response=False, padding_side="left")
    seconds = clock(loaded.device) - start
    times = np.zeros((len(removed), 2))
    for turn in range(len(removed)):
        system = (first + turn) % len(removed)
        times[system] = _decode(loaded, batch, removed[system], new_tokens)
    return seconds, times


def _decode(
    loaded: LoadedModel, batch: PreparedBatch, layers: Sequence[int] | Plan, new_tokens: int
) -> tuple[float, float]:
    with pruned(loaded.model, layers, family=loaded.family) if layers else nullcontext():
        decoded = greedy(loaded.lm, batch, eos_ids=(), max_new_tokens=new_tokens)
    return decoded.prefill_seconds, decoded.decode_seconds


def estimate(values: Floats, *, replicates: int = 1000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean over clips of the median over rounds, with its interval over clips; over rounds if there is one clip.

    The median keeps a round that something else on the machine disturbed from counting.

    Args:
        values: (C, K), C clips and K rounds.
        replicates: bootstrap replicates.
        level: of the interval.
        seed: of the draws.
    """
    value = float(np.median(values, axis=1).mean())
    seconds = np.median(values, axis=1) if len(values) > 1 else values[0]
    if len(seconds) < 2:
        return Estimate(value=value, level=level)
    units = Units.of([None] * len(seconds), "utterance")
    resampler = make_resampler(units.clusters, replicates=replicates, seed=seed)
    low, high = mean_bounds(seconds[:, None], np.ones((len(seconds), 1)), resampler, level)
    # Of one clip the bounds are around the mean of its rounds, the value is their median.
    shift = value - float(seconds.mean())
    return Estimate(
        value=value, low=float(low[0]) + shift, high=float(high[0]) + shift, level=level, caution=units.caution
    )
