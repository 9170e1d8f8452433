"""One forward pass, all blocks, all scopes: the streaming collector.

Hooks take the input of every layer and the raw output of the last one (before the final norm), at real positions only.
For a batch of N such positions they fill one buffer (N, L+1, d); float64 Gram matrices of its unit vectors hold the
cosines between the ends of every block, and the metrics' values are summed per utterance and scope. Memory is one
batch of states plus a few (chunk, L, L) matrices; nothing is kept between batches but the sums, which the caller may
stream to disk. The LM head never runs.

float64 is not luxury: arccos has an infinite slope at 1, so a cosine off by 1e-7 (float32) is an angle off by up to
1.4e-4, and neighbouring layers are nearly parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shoal.decoder.states import decoder_arguments, recording
from shoal.errors import MeasureError
from shoal.measurement.blocks import CHUNK_BYTES, block_ends
from shoal.measurement.metrics import column_count, cosine_metrics
from shoal.models.batch import PreparedBatch
from shoal.schema import SCOPES


@dataclass(frozen=True, slots=True)
class UtteranceSums:
    """Sums of one utterance: `sums` (scopes, columns) float64 and `counts` (scopes,) int64, scopes as in `SCOPES`."""

    id: str
    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


@torch.inference_mode()
def collect(
    decoder: nn.Module,
    layers: nn.ModuleList,
    batches: Iterable[PreparedBatch],
    *,
    state: Callable[[Tensor], Tensor] = lambda hidden: hidden,
) -> Iterator[UtteranceSums]:
    """Run the decoder stack over `batches` and yield the sums of each utterance, in the batches' order.

    Args:
        decoder: the stack without the LM head; takes `inputs_embeds`, `attention_mask`, `use_cache` and, where it
            knows them, `position_ids`.
        layers: its layers, in order.
        batches: padded left or right; padding never counts. A batch that records the model's own call of its decoder
            is run with that call.
        state: takes the residual stream (B, T, d) out of what layers pass on; see `Family.state`.

    Raises:
        MeasureError: a state is NaN, infinite or zero. Such a clip has no distance, least of all distance 0.
    """
    with recording(layers, state) as buffer:
        for batch in batches:
            mask = batch.attention_mask.bool()
            buffer.start(mask)
            decoder(**decoder_arguments(decoder, batch), use_cache=False)
            yield from _sums_of_batch(buffer.take(), batch, mask)


def _sums_of_batch(states: Tensor, batch: PreparedBatch, mask: Tensor) -> Iterator[UtteranceSums]:
    depth = states.shape[1] - 1
    in_scope = batch.scopes()
    scopes = in_scope[mask].to("cpu", torch.float64)
    row_of = mask.nonzero()[:, 0].cpu()
    sums = torch.zeros((len(batch.ids), len(SCOPES), column_count(depth)), dtype=torch.float64)
    for chunk in _chunks(states):
        names = [batch.ids[row] for row in row_of[chunk].tolist()]
        values = block_values(states[chunk], names.__getitem__)
        for row in row_of[chunk].unique().tolist():
            positions = (row_of[chunk] == row).nonzero()[:, 0]
            sums[row] += scopes[chunk][positions].T @ values[positions]
    counts = in_scope.sum(1).cpu()
    for row, name in enumerate(batch.ids):
        yield UtteranceSums(name, sums[row].numpy(), counts[row].numpy())


def block_values(states: Tensor, name_of: Callable[[int], str] = str) -> Tensor:
    """All metrics' values at each position: (N, L+1, d) → (N, columns), float64 on the CPU.

    Args:
        states: the states at the L+1 boundaries, any floating dtype.
        name_of: names position i in an error.

    Raises:
        MeasureError: a state is NaN, infinite or zero.
    """
    depth = states.shape[1] - 1
    if states.device.type == "mps":  # has no float64
        states = states.cpu()
    unit = states.to(torch.float64)
    norms = torch.linalg.vector_norm(unit, dim=-1)
    _refuse_bad_states(norms, name_of)
    unit = unit.div_(norms.unsqueeze(-1)) if unit is not states else unit / norms.unsqueeze(-1)
    gram = torch.bmm(unit, unit.transpose(1, 2))
    starts, stops = block_ends(depth)
    flat = torch.from_numpy(starts * (depth + 1) + stops).to(gram.device)
    cosines = gram.flatten(1).index_select(1, flat)
    return torch.cat([metric.values(cosines, depth) for metric in cosine_metrics()], dim=1).cpu()


def _refuse_bad_states(norms: Tensor, name_of: Callable[[int], str]) -> None:
    bad = ~(torch.isfinite(norms) & (norms > 0))
    if bad.any():
        position, boundary = bad.nonzero()[0].tolist()
        what = "zero" if norms[position, boundary] == 0 else "not finite"
        raise MeasureError(
            f"clip {name_of(position)}: the state at boundary {boundary} is {what}, so no distance exists; "
            "try float32, or leave the clip out"
        )


def _chunks(states: Tensor) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES // (states.shape[1] * states.shape[2] * 8))
    for start in range(0, states.shape[0], size):
        yield slice(start, min(start + size, states.shape[0]))
