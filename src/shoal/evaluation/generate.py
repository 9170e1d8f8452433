"""Greedy decoding of one batch, with finished rows leaving it: for timing, and for caches of any kind.

It starts from embedded positions (`PreparedBatch`), so the encoder runs once per batch however many pruned
versions of the decoder are tried on it, and it times the prefill apart from the steps after it. Data sets are decoded
by `shoal.evaluation.engine`, which gives the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from shoal.evaluation.engine.run import RowState
from shoal.evaluation.engine.steps import next_tokens
from shoal.models.batch import PreparedBatch
from shoal.models.contexts import quiet

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Decoded:
    """What greedy decoding gave for a batch of B rows, in the batch's order."""

    tokens: list[list[int]]
    """B lists of token ids, without the end token."""
    truncated: list[bool]
    """Whether the row was cut at its limit before an end token came."""
    prefill_seconds: float
    """Seconds for the forward pass over the whole input, up to and including the first token."""
    decode_seconds: float
    """Seconds for all steps after the first token."""


def clock(device: torch.device) -> float:
    """Seconds, after everything queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def greedy(
    lm: nn.Module, batch: PreparedBatch, *, eos_ids: Collection[int], max_new_tokens: int | Sequence[int]
) -> Decoded:
    """Decode a left-padded batch greedily: the same tokens as `generate(do_sample=False)`, in less time.

    Args:
        lm: a causal language model that takes `inputs_embeds` or `input_ids`, `attention_mask`,
            `position_ids`, `past_key_values`, `use_cache` and `logits_to_keep`, and has a `config`.
        batch: B rows padded on the left, embedded with `(B, T, d)` values, on the model's device.
        eos_ids: tokens that end a row; empty to decode every row to its limit.
        max_new_tokens: the limit, end token included; one for all rows or one for each.

    Returns:
        The tokens of every row and the two timings.

    Raises:
        ValueError: the batch is padded on the right, or there is not one positive limit for each row.
    """
    rows = _rows(max_new_tokens, len(batch.ids))
    active = list(range(len(rows)))
    mask, positions = batch.attention_mask, batch.position_ids
    if not bool(mask[:, -1].all()):
        raise ValueError("greedy decoding needs a batch that is padded on the left")
    cache = DynamicCache(config=lm.config)
    device = batch.embeds.device
    start = clock(device)
    tokens = _step(lm, cache, mask, positions, inputs_embeds=batch.embeds)
    prefilled = clock(device)
    position = positions[:, -1:]
    while True:
        stay = _take(rows, active, tokens.tolist(), eos_ids)
        if not stay:
            break
        if len(stay) < len(tokens):
            index = torch.tensor(stay, device=device)
            cache.batch_select_indices(index)
            tokens, mask, position = tokens[index], mask[index], position[index]
        mask = torch.cat([mask, mask.new_ones(len(stay), 1)], dim=1)
        position = position + 1
        tokens = _step(lm, cache, mask, position, input_ids=tokens[:, None])
    return _decoded(rows, prefilled - start, clock(device) - prefilled)


@torch.inference_mode()
def generated(
    model: PreTrainedModel,
    batch: PreparedBatch,
    *,
    eos_ids: Collection[int],
    max_new_tokens: int | Sequence[int],
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Decoded:
    """Decode a batch by the model's own `generate`, greedily: for models whose decoder needs more than embeddings.

    Args:
        model: the whole model.
        batch: B rows that the model's own processor made (`batch.inputs`).
        eos_ids: tokens that end a row.
        max_new_tokens: the limit, end token included; one for all rows or one for each.
        options: what the family tells `generate` beside that.

    Returns:
        The tokens of every row; all the time counts as decoding, since `generate` does not tell its parts apart.
    """
    rows = _rows(max_new_tokens, len(batch.ids))
    start = clock(batch.kinds.device)
    with quiet():
        sequences: Any = model.generate(
            **batch.inputs,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=max(row.limit for row in rows),
            eos_token_id=list(eos_ids) or None,
            pad_token_id=next(iter(eos_ids), 0),
            **options,
        )
    seconds = clock(batch.kinds.device) - start
    prompt = batch.inputs.get("decoder_input_ids", batch.inputs.get("input_ids"))
    for row, tokens in zip(rows, sequences[:, _repeated(sequences, prompt) :].tolist(), strict=True):
        for token in tokens:
            row.take(token, eos_ids)
    return _decoded(rows, 0.0, seconds)


def decoded(loaded: LoadedModel, batch: PreparedBatch, limits: Sequence[int]) -> Decoded:
    """Decode a batch in whichever of the two ways the model can be decoded.

    Args:
        loaded: the model, with or without all its layers.
        batch: B rows, padded on the left.
        limits: tokens for each of them, end token included.
    """
    if loaded.engine:
        return greedy(loaded.lm, batch, eos_ids=loaded.eos_ids, max_new_tokens=limits)
    return generated(
        loaded.family.answering(loaded.model),
        batch,
        eos_ids=loaded.eos_ids,
        max_new_tokens=limits,
        options=loaded.family.generate_options,
    )


def written(loaded: LoadedModel, tokens: Sequence[Sequence[int]]) -> list[str]:
    """The answers that tokens of several rows say."""
    texts = loaded.tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)
    return [loaded.family.answer(loaded.processor, text) for text in texts]


def _repeated(sequences: Tensor, prompt: Tensor | None) -> int:
    """How many tokens of the prompt `sequences` begin with: a few classes answer with the response alone."""
    length = 0 if prompt is None else prompt.shape[1]
    return length if prompt is not None and torch.equal(sequences[:, :length], prompt) else 0


def _take(rows: Sequence[RowState], active: list[int], tokens: Sequence[int], eos_ids: Collection[int]) -> list[int]:
    """Add a token to every active row, and drop the finished ones from `active`; returns where the others are."""
    for row, token in zip(active, tokens, strict=True):
        rows[row].take(token, eos_ids)
    stay = [index for index, row in enumerate(active) if not rows[row].ended]
    active[:] = [active[index] for index in stay]
    return stay


def _step(lm: nn.Module, cache: DynamicCache, mask: Tensor, positions: Tensor, **inputs: Tensor) -> Tensor:
    """One forward pass; returns the best next token of every row, `(B,)`."""
    output = lm(
        **inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return next_tokens(output.logits)


def _rows(max_new_tokens: int | Sequence[int], count: int) -> list[RowState]:
    limits = [max_new_tokens] * count if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != count or min(limits, default=1) < 1:
        raise ValueError(f"max_new_tokens must be at least 1, one for each of {count} rows: {max_new_tokens!r}")
    return [RowState(number, limit) for number, limit in enumerate(limits)]


def _decoded(rows: Sequence[RowState], prefill_seconds: float, decode_seconds: float) -> Decoded:
    return Decoded([row.tokens for row in rows], [row.left == 0 for row in rows], prefill_seconds, decode_seconds)
