"""From the decoder's states to logits and losses, at the positions that count and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shoal.decoder.states import takes_argument
from shoal.errors import MeasureError, ModelError

if TYPE_CHECKING:
    from shoal.decoder.loss_targets import Targets
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel

LOGIT_BYTES = 2**28
"""Size of the float32 logits that are alive together."""
TOLERANCE = 1e-3
"""Largest difference to the model's own logits, times max(1, their largest absolute value); 20 times that in half
precision."""


def logits_at(loaded: LoadedModel, states: Tensor) -> Tensor:
    """Logits (N, V) float32 from states after the final norm (N, d), scaled and capped as the model does.

    Scaling (Granite, Cohere) and soft-capping (Gemma) are read from the decoder's config; `check_head` makes sure that
    there is nothing more.

    Raises:
        ModelError: the model has no head, or one for speech only.
    """
    if not loaded.family.writes:
        raise ModelError(
            "it answers in speech only, so it has no loss over words",
            where=type(loaded.model).__name__,
            fix="use --metric angular",
        )
    head: Any = loaded.family.head(loaded.model)
    if head is None:
        raise ModelError(
            "it has no head, so it has no loss", where=type(loaded.model).__name__, fix="use --metric angular"
        )
    weight = next(head.parameters(), states)
    logits: Tensor = head(states.to(weight.device)).float()
    config = loaded.family.text_config(loaded.model)
    scaling = getattr(config, "logits_scaling", None)
    if scaling and loaded.family.scales_logits:
        logits = logits / scaling
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def logit_chunks(loaded: LoadedModel, states: Tensor) -> list[slice]:
    """Parts of states (N, d) whose logits are at most `LOGIT_BYTES`."""
    with torch.no_grad():
        width = logits_at(loaded, states[:1]).shape[-1]
    size = max(1, LOGIT_BYTES // (width * 4))
    return [slice(first, first + size) for first in range(0, len(states), size)]


def losses_at(loaded: LoadedModel, states: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy in nats (N,) of `tokens` (N,) after states (N, d); see `token_losses`, a part at a time."""
    parts = [
        token_losses(logits_at(loaded, states[part]), tokens[part], loaded.eos_ids)
        for part in logit_chunks(loaded, states)
    ]
    return torch.cat(parts)


def check_losses(losses: Tensor, targets: Targets, ids: Sequence[str]) -> None:
    """Make sure that the full model has a loss.

    Args:
        losses: (N,), one for each target.
        targets: where they are.
        ids: of the utterances.

    Raises:
        MeasureError: one is not finite.
    """
    if not bool((finite := torch.isfinite(losses)).all()):
        clip = ids[int(targets.rows[int((~finite).nonzero()[0])])]
        raise MeasureError(f"clip {clip}: the loss of the full model is not finite; try float32")


def token_losses(logits: Tensor, tokens: Tensor, eos_ids: Collection[int]) -> Tensor:
    """Cross-entropy in nats (N,) of `tokens` (N,) under `logits` (N, V).

    A token of -1 stands for the end: any of `eos_ids` is right, so their probabilities add up.
    """
    whole = torch.logsumexp(logits, -1)
    losses = whole - logits.gather(1, tokens.clamp(min=0)[:, None])[:, 0]
    if not bool((ends := tokens < 0).any()):
        return losses
    ending = torch.logsumexp(logits[:, list(eos_ids)], -1)
    return torch.where(ends, whole - ending, losses)


@torch.inference_mode()
def check_head(loaded: LoadedModel, batch: PreparedBatch, last: Tensor) -> None:
    """Make sure that `logits_at` gives the logits of the model's own forward pass.

    Args:
        loaded: the model.
        batch: any batch of it.
        last: its decoder's states after the final norm (B, T, d) on that batch.

    Raises:
        ModelError: it does not, so a loss would be another model's.
    """
    own = _own_logits(loaded, batch)[:, -1].float()
    ours = logits_at(loaded, last[:, -1])
    coarse = 1 if loaded.dtype == torch.float32 else 20
    allowed = coarse * TOLERANCE * max(1.0, float(own.abs().max()))
    if own.shape != ours.shape or not bool((own - ours.to(own.device)).abs().max() <= allowed):
        raise ModelError(
            "its logits are not what its head makes of its decoder's states, so its loss is not known",
            where=type(loaded.model).__name__,
            fix="measure it with --metric angular or influence",
        )


def _own_logits(loaded: LoadedModel, batch: PreparedBatch) -> Tensor:
    """(B, at least 1, V): the last is the one at the last position."""
    model: nn.Module
    if batch.inputs:
        model = loaded.family.answering(loaded.model)
        inputs = loaded.family.forward_inputs(loaded.model, dict(batch.inputs))
    elif batch.call:
        # Clips that were encoded alone: what is left of the processor's inputs is the call of the decoder.
        model, inputs = loaded.family.answering(loaded.model), dict(batch.call)
    else:
        model = loaded.lm
        inputs = {"inputs_embeds": batch.embeds, "attention_mask": batch.attention_mask}
        if takes_argument(model, "position_ids"):
            inputs["position_ids"] = batch.position_ids
    short = {"logits_to_keep": 1} if takes_argument(model, "logits_to_keep") else {}
    logits: Tensor = model(**inputs, **short, use_cache=False).logits
    return logits
