"""Which tokens a loss is taken over, and where they are predicted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.errors import MeasureError
from shoal.models.batch import Kind, PreparedBatch, stands_alone
from shoal.schema import Scope


@dataclass(frozen=True, slots=True)
class Targets:
    """N tokens to predict, row by row, each predicted at the position before it.

    A response ends: after its last token one of the model's end tokens is due, whichever (`token` -1).
    """

    rows: Tensor
    """(N,) int64: the utterance, ascending."""
    positions: Tensor
    """(N,) int64: where it is predicted."""
    tokens: Tensor
    """(N,) int64: what is due there; -1 for the end."""

    def flat_positions(self, clips: int, length: int, times: int) -> Tensor:
        """(times · N,): where they are predicted among all positions, row after row, of a batch that is repeated.

        Args:
            clips: utterances in the batch.
            length: positions of each.
            times: how often the batch stands there.
        """
        once = self.rows * length + self.positions
        shift = torch.arange(times, device=once.device)[:, None] * clips * length
        return (once + shift).flatten()

    def counts(self, utterances: int) -> Tensor:
        """(utterances,) int64: how many targets each utterance has."""
        return torch.bincount(self.rows, minlength=utterances)


def targets_of(batch: PreparedBatch, scope: Scope, eos_ids: Collection[int]) -> Targets:
    """The targets of a batch with responses.

    Args:
        batch: B utterances, padded on either side.
        scope: whose tokens count: `text` the response and its end, `last` the first token of the response (predicted at
            the last position before it; of a text that stands alone its last token), `prompt` the template and the
            instruction, `audio` the transcript's tokens where they take the place of the audio, `all` all of them. The
            first position is predicted by nothing.
        eos_ids: the end tokens; empty: the end is not predicted, as for a text that stands alone.

    Raises:
        MeasureError: an utterance has no such token.
    """
    kinds, tokens = batch.kinds.long(), batch.token_ids
    due = _due(kinds, scope) & (tokens >= 0)
    due[:, 0] = False
    due[:, 1:] &= kinds[:, :-1] != Kind.PAD
    rows, at = due.nonzero(as_tuple=True)
    targets = Targets(rows, at - 1, tokens[rows, at])
    if scope in ("response", "all") and batch.ends and eos_ids:
        targets = _with_end(targets, kinds)
    if len(bare := (targets.counts(len(batch.ids)) == 0).nonzero()):
        raise MeasureError(f"clip {batch.ids[int(bare[0])]}: no token in scope {scope}, so no loss exists")
    return targets


def _due(kinds: Tensor, scope: Scope) -> Tensor:
    if scope == "all":
        return kinds != Kind.PAD
    if scope == "last":
        text = kinds == Kind.TEXT
        from_end = text.flip(1).cumsum(1).flip(1)
        return text & (torch.where(stands_alone(kinds), from_end, text.cumsum(1)) == 1)
    return kinds == {"audio": Kind.AUDIO, "prompt": Kind.PROMPT, "response": Kind.TEXT}[scope]


def _with_end(targets: Targets, kinds: Tensor) -> Targets:
    text = kinds == Kind.TEXT
    last = text & (text.flip(1).cumsum(1).flip(1) == 1)
    rows, at = last.nonzero(as_tuple=True)
    rows, positions = torch.cat([targets.rows, rows]), torch.cat([targets.positions, at])
    tokens = torch.cat([targets.tokens, torch.full_like(at, -1)])
    order = torch.argsort(rows * kinds.shape[1] + positions)
    return Targets(rows[order], positions[order], tokens[order])
