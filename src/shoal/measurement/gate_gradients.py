"""Gradient importance: what the loss would rise by without a block, an attention or an MLP, to first order.

Put a gate g on what a part adds to the residual stream, h + g·f(h). The loss without the part is the loss at g = 0, and
its Taylor expansion at g = 1 predicts a rise of -dL/dg (Michel et al. 2019, arXiv 1905.10650, section 4.1, for heads;
Molchanov et al. 2019, arXiv 1906.10771, for filters). By the chain rule dL/dg is the sum over positions of <dL/dc, c>,
where c is the part's contribution. For a block (l, n) that is what its layers add together, x_{l+n} - x_l, so one
backward pass, with the gradients at the L+1 boundaries, gives all L (L + 1) / 2 blocks at once.

`signed` keeps the sign, so that it estimates the rise itself. The others are meant for ranking, since what clips gain
and lose would cancel otherwise: `clip-absolute` adds up |dL/dg| of the clips, where L is the loss of one clip (Michel
et al.), `squared` adds up its square (Molchanov et al.), and `absolute` adds up absolute values of single positions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shoal.decoder.logits import check_head, check_losses, logit_chunks, logits_at, token_losses
from shoal.decoder.loss_targets import Targets, targets_of
from shoal.decoder.states import decoder_arguments, first_of, last_states, layer_hooks, state_in
from shoal.decoder.sublayers import Sublayers, exact, sublayers_of
from shoal.errors import MeasureError, ModelError
from shoal.measurement.blocks import CHUNK_BYTES, block_ends, block_layers
from shoal.measurement.importance import UNIT, ImportanceSums, refuse_bad
from shoal.statistics import Floats, Ints
from shoal.terms import Candidate

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part, Scope

METHOD = "one backward pass"
UNITS = {"clip-absolute": UNIT, "squared": "nats² a token", "absolute": UNIT, "signed": UNIT}
"""Quantity → unit."""


def gate_gradients(
    loaded: LoadedModel, batches: Iterable[PreparedBatch], *, scope: Scope = "response", parts: bool = True
) -> list[ImportanceSums]:
    """Measure every block, and every attention and MLP, by one forward and one backward pass a batch.

    Args:
        loaded: the model, unpruned.
        batches: clips with responses, padded on either side.
        scope: whose tokens the loss is taken over.
        parts: attention and MLP too; where a model's layers are something else, they are left out with a warning.

    Returns:
        All four quantities of the blocks in the order of `block_ends`, then of the attentions and of the MLPs.

    Raises:
        MeasureError: a loss is not finite, a clip has no target, or the loss does not depend on a layer.
        ModelError: the loss of this class is not known.
    """
    gradients = _GateGradients(loaded, scope=scope, parts=parts)
    for batch in batches:
        gradients.add(batch)
    return gradients.sums()


@dataclass(slots=True)
class _Tape:
    """What hooks take out of one forward pass, with the graph that made it."""

    states: dict[int, Tensor] = field(default_factory=dict)
    """Boundary 0 … L → what layers pass on."""
    contributions: dict[tuple[Part, int], Tensor] = field(default_factory=dict)
    """(part, layer) → its contribution (B, T, d), or (B·T, d)."""

    def tensors(self) -> list[Tensor]:
        """All of them, boundaries first, in order."""
        return [*(self.states[at] for at in sorted(self.states)), *self.contributions.values()]


class _GateGradients:
    """Adds up what one batch after the other gives; arguments as `gate_gradients`."""

    def __init__(self, loaded: LoadedModel, *, scope: Scope = "response", parts: bool = True) -> None:
        self._loaded, self._scope, self._parts = loaded, scope, parts
        self._sublayers: list[Sublayers] = []
        self._ids: list[str] = []
        self._counts: list[Ints] = []
        self._values: dict[tuple[Part, str], list[Floats]] = {}

    def add(self, batch: PreparedBatch) -> None:
        """Measure one more batch; raises as `gate_gradients`."""
        # What a batch holds may have been made in inference mode, in which no graph can be.
        with torch.inference_mode(False), torch.enable_grad():
            targets = targets_of(batch, self._scope, self._loaded.eos_ids)
            if not self._ids and self._parts:
                self._sublayers = self._proved(batch)
            tape, last = self._forward(batch)
            slopes = self._slopes(batch, targets, tape, last)
            if not self._ids:
                check_head(self._loaded, batch, last.detach())
        self._keep(batch, targets, tape, slopes)

    def sums(self) -> list[ImportanceSums]:
        """What was measured so far."""
        return [self._summed(part, quantity) for part, quantity in self._values]

    def _summed(self, part: Part, quantity: str) -> ImportanceSums:
        values = np.concatenate(self._values[part, quantity])
        return refuse_bad(
            ImportanceSums(
                metric="gradient",
                quantity=quantity,
                scope=self._scope,
                part=part,
                candidates=self._candidates(part),
                utterances=tuple(self._ids),
                values=np.where(np.isfinite(values), values, np.inf),
                counts=np.concatenate(self._counts),
                unit=UNITS[quantity],
                method=METHOD,
            )
        )

    def _candidates(self, part: Part) -> tuple[Candidate, ...]:
        depth = len(self._loaded.layers)
        if part != "layer":
            return tuple((layer,) for layer in range(depth))
        return tuple(block_layers(depth))

    def _proved(self, batch: PreparedBatch) -> list[Sublayers]:
        model, family = self._loaded.model, self._loaded.family
        try:
            return sublayers_of(model, family, run=lambda: self._run(batch))
        except ModelError as error:
            logging.getLogger(__name__).warning("%s; attention and MLP are left out", error)
            return []

    def _forward(self, batch: PreparedBatch) -> tuple[_Tape, Tensor]:
        """The tape, and the states after the final norm (B, T, d)."""
        tape = _Tape()
        with _hooks(self._loaded.layers, self._sublayers, tape):
            return tape, self._run(batch)

    def _run(self, batch: PreparedBatch) -> Tensor:
        decoder = self._loaded.decoder
        return last_states(decoder(**decoder_arguments(decoder, batch), use_cache=False))

    def _slopes(self, batch: PreparedBatch, targets: Targets, tape: _Tape, last: Tensor) -> list[Tensor]:
        """dL/dt for every tensor t of the tape, in order, where L is the sum of all targets' losses."""
        at_targets = last[targets.rows, targets.positions]
        losses, slope = self._head(at_targets.detach(), targets.tokens)
        check_losses(losses, targets, batch.ids)
        slopes = torch.autograd.grad(at_targets, tape.tensors(), slope, allow_unused=True)
        for index, gradient in enumerate(slopes):
            if gradient is None:
                raise MeasureError(f"the loss does not depend on state {index}, so its gradient says nothing")
        return list(slopes)

    def _head(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (N,) of states after the norm (N, d), and the gradient of their sum (N, d), a chunk at a time."""
        losses: list[Tensor] = []
        slopes: list[Tensor] = []
        for chunk in logit_chunks(self._loaded, states):
            leaf = states[chunk].detach().requires_grad_()
            loss = token_losses(logits_at(self._loaded, leaf), tokens[chunk], self._loaded.eos_ids)
            slopes += torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat(slopes)

    @torch.no_grad()
    def _keep(self, batch: PreparedBatch, targets: Targets, tape: _Tape, slopes: Sequence[Tensor]) -> None:
        mask = batch.attention_mask.bool()
        state = self._loaded.family.state
        bounds = len(tape.states)
        self._ids += batch.ids
        self._counts.append(targets.counts(len(batch.ids)).cpu().numpy())
        states = [state(tape.states[at].detach()) for at in range(bounds)]
        self._store("layer", _block_sums(states, [state(slope) for slope in slopes[:bounds]], mask))
        by_part: dict[Part, list[Tensor]] = {}
        for ((part, _), contribution), slope in zip(tape.contributions.items(), slopes[bounds:], strict=True):
            by_part.setdefault(part, []).append(_gate_slopes(contribution.detach(), slope, mask))
        for part, columns in by_part.items():
            gates = torch.stack(columns, dim=-1)  # (B, T, L)
            self._store(part, (-gates.sum(1), gates.abs().sum(1)))

    def _store(self, part: Part, values: tuple[Tensor, Tensor]) -> None:
        signed, absolute = values
        sums = {"clip-absolute": signed.abs(), "squared": signed.square(), "absolute": absolute, "signed": signed}
        for quantity, of_clips in sums.items():
            self._values.setdefault((part, quantity), []).append(of_clips.cpu().numpy())


def _hooks(layers: nn.ModuleList, sublayers: Sequence[Sublayers], tape: _Tape) -> AbstractContextManager[None]:
    def before(index: int, _: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = state_in(args, kwargs)
        if index == 0:
            # The graph begins here: weights are frozen, and what is before the decoder has no part in it.
            hidden = hidden.detach().clone().requires_grad_()
            args = (hidden, *args[1:]) if args else ()
            kwargs = kwargs if args else kwargs | {"hidden_states": hidden}
        tape.states[index] = hidden
        return args, kwargs

    def after(index: int, _: nn.Module, __: Any, output: Any) -> None:
        if index == len(layers) - 1:
            tape.states[index + 1] = first_of(output)

    def contributed(part: Part, index: int, _: nn.Module, __: Any, output: Any) -> None:
        tape.contributions[part, index] = first_of(output)

    handles: list[RemovableHandle] = []
    for index, parts in enumerate(sublayers):
        handles.append(parts.attention.register_forward_hook(partial(contributed, "attention", index)))
        handles.append(parts.mlp.register_forward_hook(partial(contributed, "mlp", index)))
    return layer_hooks(layers, before, after, handles)


def _block_sums(states: Sequence[Tensor], slopes: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Signed and absolute sums (B, L (L + 1) / 2) of all blocks, float64.

    Args:
        states: L+1 boundaries (B, T, d).
        slopes: the loss's gradient there.
        mask: (B, T) bool, the real positions.
    """
    starts, stops = (torch.from_numpy(ends).to(mask.device) for ends in block_ends(len(states) - 1))
    signed = torch.zeros((len(mask), len(starts)), dtype=torch.float64)
    absolute = torch.zeros_like(signed)
    size = max(1, CHUNK_BYTES // (len(states) * states[0].shape[-1] * 8))
    for row, real in enumerate(mask):
        for chunk in real.nonzero()[:, 0].split(size):
            x, slope = (torch.stack([_at(tensor, row, chunk) for tensor in tensors], 1) for tensors in (states, slopes))
            # (n, L+1, L+1): the slope at one boundary, the state at another
            dots = torch.bmm(slope, x.transpose(1, 2))
            gates = dots[:, stops, stops] - dots[:, stops, starts]
            signed[row] -= gates.sum(0).cpu()
            absolute[row] += gates.abs().sum(0).cpu()
    return signed, absolute


def _at(tensor: Tensor, row: int, positions: Tensor) -> Tensor:
    """(n, d) float64, on the device of `positions`, or where there is float64."""
    states = exact(tensor[row, positions.to(tensor.device)])
    return states if positions.device.type == "mps" else states.to(positions.device)


def _gate_slopes(contribution: Tensor, slope: Tensor, mask: Tensor) -> Tensor:
    """What each position has of dL/dg for a gate on a contribution: (B, T) float64 on the CPU, 0 on padding."""
    shape = (*mask.shape, contribution.shape[-1])
    product = (exact(contribution.reshape(shape)) * exact(slope.reshape(shape))).sum(-1).cpu()
    return product.masked_fill(~mask.cpu(), 0.0)
