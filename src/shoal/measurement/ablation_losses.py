"""Ablation: what the task truly loses without a layer, a block, or the attention or MLP of one.

Two quantities, over the same target tokens, teacher-forced: the rise of the task loss (cross-entropy in nats a token),
and the Kullback–Leibler divergence of the model without the candidate from the full model, KL(full ‖ without).
Leaving a layer out and measuring is as old as pruning; for decoders see SLEB (arXiv 2402.09025) and Shortened LLaMA
(arXiv 2402.02834), which run the model once for each candidate. Here the shared part is run once: `replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shoal.decoder.logits import check_head, check_losses, logit_chunks, logits_at, token_losses
from shoal.decoder.loss_targets import Targets, targets_of
from shoal.decoder.states import decoder_arguments, last_states
from shoal.measurement.replay import NotReplayable, Recording, Replayer, record
from shoal.pruning.in_memory import pruned, removal_problem
from shoal.statistics import Floats, Ints
from shoal.terms import Candidate

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part, Scope

EXACTNESS = 1e-5
"""How far a replayed loss may be from that of the model with its layers removed, times max(1, the loss), in float32."""
HALF_EXACTNESS = 0.05
"""The same in bfloat16 and float16, whose matrix products depend on the size of the batch."""
FOR_EACH_LAYER = "per_layer_inputs"
"""What Gemma 3n and Gemma 4 hand their decoder for each of its layers: (B, T, L, p)."""


@dataclass(frozen=True)
class BatchLosses:
    """Sums over the targets of each of B clips without each of C candidates, nats; NaN where not finite."""

    ids: list[str]
    full: Floats
    """(B,): loss of the full model."""
    loss: Floats
    """(B, C)."""
    kl: Floats
    """(B, C)."""
    counts: Ints
    """(B,): targets."""


class Ablation:
    """Measures candidates on one batch after the other.

    The first batch decides how: by replaying if the decoder can be replayed and the result is exact, else by removing
    layers for real.

    Args:
        loaded: the model, unpruned.
        scope: whose tokens the loss is taken over.
        part: what of the layers goes.
        replay: False never replays.
    """

    def __init__(
        self, loaded: LoadedModel, *, scope: Scope = "response", part: Part = "layer", replay: bool = True
    ) -> None:
        self._loaded, self.scope, self.part = loaded, scope, part
        self._replay: bool | None = None if replay else False
        self._checked, self._shorten = False, True
        self.why_not = "" if replay else "not asked for"
        """Why the model is not replayed, once it is known."""
        self.evaluations = 0
        """Layers run so far, times clips."""

    @property
    def method(self) -> str:
        """`replay` or `removal`, once a batch was measured."""
        return "replay" if self._replay else "removal"

    def refused(self, candidates: Sequence[Candidate]) -> dict[int, str]:
        """The candidates that the model cannot go without: index → why."""
        model, family = self._loaded.model, self._loaded.family
        problems = [removal_problem(model, layers, part=self.part, family=family) for layers in candidates]
        return {index: problem for index, problem in enumerate(problems) if problem is not None}

    @torch.inference_mode()
    def measure(self, batch: PreparedBatch, candidates: Sequence[Candidate]) -> BatchLosses:
        """Every candidate on one batch.

        Args:
            batch: B clips with responses.
            candidates: each at least one layer, ascending, that `refused` does not name.

        Raises:
            MeasureError: the full model's own loss is not finite, or a clip has no target.
            ModelError: the loss of this class is not known.
        """
        targets = targets_of(batch, self.scope, self._loaded.eos_ids)
        tape = self._recorded(batch)
        if tape is not None:
            last, ends = tape.last, self._replayed(tape, candidates, targets)
        else:
            last, ends = self._whole(batch), self._removed(batch, candidates, targets)
        result = self._losses(batch, targets, last, ends, len(candidates))
        if not self._checked:
            check_head(self._loaded, batch, last)
            self._checked = True
        if self._replay is None and not self._exact(batch, candidates, result, targets, last):
            self._give_way()
            return self.measure(batch, candidates)
        self._replay = tape is not None
        return result

    def _give_way(self) -> None:
        """Something that was taken for granted does not hold: do without it, first the shortcut, then replaying."""
        if self._shorten:
            self._shorten = False
        else:
            self._replay, self.why_not = False, "a replayed loss is not the pruned model's"

    def _recorded(self, batch: PreparedBatch) -> Recording | None:
        if self._replay is False:
            return None
        try:
            tape = record(self._loaded, batch)
        except NotReplayable as error:
            self._replay, self.why_not = False, str(error)
            return None
        self.evaluations += tape.depth * len(batch.ids)
        return tape

    def _replayed(
        self, tape: Recording, candidates: Sequence[Candidate], targets: Targets
    ) -> Iterator[tuple[int, Tensor]]:
        only = targets if self._shorten else None
        replayer = Replayer(self._loaded, tape, part=self.part, only=only)
        for index, state in replayer.final_states(candidates):
            at_targets = state[targets.rows, targets.positions]
            yield index, at_targets if tape.norm is None else tape.norm(at_targets)
        self.evaluations += replayer.evaluations

    def _whole(self, batch: PreparedBatch, gone: Candidate = ()) -> Tensor:
        """States after the final norm (B, T, d) of the decoder as it is, from which the layers `gone` were removed."""
        decoder = self._loaded.decoder
        arguments = _without_layers(decoder_arguments(decoder, batch), gone)
        self.evaluations += len(self._loaded.layers) * len(batch.ids)
        return last_states(decoder(**arguments, use_cache=False))

    def _removed(
        self, batch: PreparedBatch, candidates: Sequence[Candidate], targets: Targets
    ) -> Iterator[tuple[int, Tensor]]:
        for index, candidate in enumerate(candidates):
            gone = candidate if self.part == "layer" else ()
            with self._pruned(candidate):
                yield index, self._whole(batch, gone)[targets.rows, targets.positions]

    def _pruned(self, candidate: Candidate) -> AbstractContextManager[object]:
        return pruned(self._loaded.model, candidate, family=self._loaded.family, part=self.part)

    def _exact(
        self, batch: PreparedBatch, candidates: Sequence[Candidate], losses: BatchLosses, targets: Targets, last: Tensor
    ) -> bool:
        """Whether the first, the middle and the last candidate lose what they lose when removed for real."""
        indices = sorted({0, len(candidates) // 2, len(candidates) - 1})
        some = [candidates[index] for index in indices]
        truth = self._losses(batch, targets, last, self._removed(batch, some, targets), len(some))
        allowed = EXACTNESS if self._loaded.dtype == torch.float32 else HALF_EXACTNESS
        ours, true = (loss / truth.counts[:, None] for loss in (losses.loss[:, indices], truth.loss))
        return np.allclose(ours, true, rtol=allowed, atol=allowed, equal_nan=True)

    def _losses(
        self, batch: PreparedBatch, targets: Targets, last: Tensor, ends: Iterable[tuple[int, Tensor]], count: int
    ) -> BatchLosses:
        head = _Losses(self._loaded, targets, last[targets.rows, targets.positions])
        check_losses(head.full, targets, batch.ids)
        rows, utterances = targets.rows.cpu().numpy(), len(batch.ids)
        loss, kl = np.zeros((utterances, count)), np.zeros((utterances, count))
        for index, states in ends:
            token_loss, token_kl = head.of(states)
            loss[:, index] = np.bincount(rows, token_loss, minlength=utterances)
            kl[:, index] = np.bincount(rows, token_kl, minlength=utterances)
        full = np.bincount(rows, head.full.double().cpu().numpy(), minlength=utterances)
        counts = targets.counts(utterances).cpu().numpy()
        return BatchLosses(list(batch.ids), full.astype(np.float64), loss, kl, counts)


class _Losses:
    """Loss and divergence at N targets; the full model's distribution is kept, or made again where it is too large."""

    def __init__(self, loaded: LoadedModel, targets: Targets, states: Tensor) -> None:
        self._loaded, self._tokens, self._states = loaded, targets.tokens, states
        self._chunks = logit_chunks(loaded, states)
        self._kept: tuple[Tensor, Tensor] | None = None
        full = []
        for chunk in self._chunks:
            logits = logits_at(loaded, states[chunk])
            full.append(token_losses(logits, targets.tokens[chunk], loaded.eos_ids))
            self._kept = _distribution(logits) if len(self._chunks) == 1 else None
        self.full = torch.cat(full)
        """(N,): the full model's."""

    def of(self, states: Tensor) -> tuple[Floats, Floats]:
        """Loss and KL(full ‖ this), both (N,), from states after the norm (N, d)."""
        losses, divergences = [], []
        for chunk in self._chunks:
            logits = logits_at(self._loaded, states[chunk])
            losses.append(token_losses(logits, self._tokens[chunk], self._loaded.eos_ids))
            share, entropy = self._kept or _distribution(logits_at(self._loaded, self._states[chunk]))
            cross = torch.logsumexp(logits, -1) - torch.einsum("nv,nv->n", share, logits)
            divergences.append(cross - entropy)
        return (torch.cat(losses).double().cpu().numpy(), torch.cat(divergences).double().cpu().numpy())


def _without_layers(arguments: dict[str, Any], gone: Candidate) -> dict[str, Any]:
    """The decoder's arguments, recorded with all its layers, as the model without the layers `gone` makes them."""
    by_layer = arguments.get(FOR_EACH_LAYER)
    if not gone or by_layer is None:
        return arguments
    kept = [layer for layer in range(by_layer.shape[2]) if layer not in gone]
    return arguments | {FOR_EACH_LAYER: by_layer[:, :, kept]}


def _distribution(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N, V) and entropy in nats (N,)."""
    log_share = torch.log_softmax(logits, -1)
    share = log_share.exp()
    return share, -torch.einsum("nv,nv->n", share, log_share)
