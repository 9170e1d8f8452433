"""Many answers to one prompt: the prompt is run once, and every answer goes on from its cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from shoal.decoder.logits import losses_at
from shoal.decoder.states import last_states
from shoal.models.families.audio_llm import AudioLLM

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

MOST_ROWS = 64
"""Answers that are run together, unless a batch has more clips: each has a copy of its prompt's cache."""


def continues(loaded: LoadedModel, task: Task) -> bool:
    """Whether answers to `task` can go on from a prompt's cache.

    The decoder must run from embeddings, as in the decode engine, with a cache that can be repeated (no state space
    model's), and the answer must be what follows the prompt.
    """
    family = loaded.family
    if task.plain_text or not loaded.engine:
        return False
    if isinstance(family, AudioLLM) and type(family).with_response is not AudioLLM.with_response:
        return False
    layers = DynamicCache(config=family.text_config(loaded.model)).layers
    return all(hasattr(layer, "batch_repeat_interleave") for layer in layers)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """B prompts that were run, with states after their last position."""

    cache: DynamicCache
    mask: Tensor
    """(B, T)."""
    next_position: Tensor
    """(B,)."""
    last: Tensor
    """(B, d): the states that predict the first token of an answer."""


@torch.inference_mode()
def log_likelihoods(loaded: LoadedModel, batch: PreparedBatch, answers: Sequence[Sequence[str]]) -> list[list[float]]:
    """Log-likelihood (nats) of every answer and its end after its prompt.

    Args:
        loaded: the model, with or without all its layers; see `continues`.
        batch: B prompts without responses, padded on the left.
        answers: to each of them, any number.
    """
    prompt = _run(loaded, batch)
    values: list[list[float]] = [[] for _ in answers]
    at_once = max(1, MOST_ROWS // len(answers))
    for first in range(0, max(map(len, answers)), at_once):
        part = [list(of_prompt[first : first + at_once]) for of_prompt in answers]
        for row, value in _values(loaded, prompt, part):
            values[row].append(value)
    return values


def _run(loaded: LoadedModel, batch: PreparedBatch) -> _Prompt:
    cache = DynamicCache(config=loaded.family.text_config(loaded.model))
    decoder: Any = loaded.decoder
    output = decoder(
        inputs_embeds=batch.embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        past_key_values=cache,
        use_cache=True,
    )
    return _Prompt(cache, batch.attention_mask, batch.position_ids[:, -1] + 1, last_states(output)[:, -1])


def _values(loaded: LoadedModel, prompt: _Prompt, answers: Sequence[Sequence[str]]) -> list[tuple[int, float]]:
    """(row, log-likelihood) of every answer, row by row; one forward pass."""
    width = max(map(len, answers))
    # Every row gets `width` answers, because a cache is repeated the same number of times for all.
    padded = [(*of_prompt, *[""] * (width - len(of_prompt))) for of_prompt in answers]
    tokens = [_ids(loaded, answer) for of_prompt in padded for answer in of_prompt]
    states = _go_on(loaded, prompt, tokens, width)
    values = _sums(loaded, states, [[*ids, -1] if loaded.eos_ids else ids for ids in tokens])
    return [
        (row, values[row * width + column]) for row, of_prompt in enumerate(answers) for column in range(len(of_prompt))
    ]


def _ids(loaded: LoadedModel, answer: str) -> list[int]:
    family = loaded.family
    written = family.response(answer) if isinstance(family, AudioLLM) else loaded.response_text(answer)
    return list(loaded.tokenizer(written, add_special_tokens=False)["input_ids"])


def _go_on(loaded: LoadedModel, prompt: _Prompt, tokens: Sequence[Sequence[int]], times: int) -> Tensor:
    """States (N, 1 + n, d) after the prompt's last position and after each token; N answers, `times` a prompt."""
    device = prompt.last.device
    owner = torch.arange(len(prompt.last), device=device).repeat_interleave(times)
    ids = pad_sequence([torch.tensor(answer, dtype=torch.long) for answer in tokens], batch_first=True).to(device)
    offsets = torch.arange(ids.shape[1], device=device)
    real = offsets < torch.tensor([len(answer) for answer in tokens], device=device)[:, None]
    cache = copy.deepcopy(prompt.cache)
    cache.batch_repeat_interleave(times)
    decoder: Any = loaded.decoder
    output = decoder(
        inputs_embeds=decoder.get_input_embeddings()(ids),
        attention_mask=torch.cat([prompt.mask[owner], real.long()], dim=1),
        position_ids=prompt.next_position[owner][:, None] + offsets,
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([prompt.last[owner][:, None], last_states(output)], dim=1)


def _sums(loaded: LoadedModel, states: Tensor, due: Sequence[Sequence[int]]) -> list[float]:
    """Log-likelihood of what is due after each of the states (N, 1 + n, d), from the first on; -1 is the end."""
    rows = torch.tensor([row for row, answer in enumerate(due) for _ in answer])
    steps = torch.tensor([step for answer in due for step in range(len(answer))])
    tokens = torch.tensor([token for answer in due for token in answer], device=states.device)
    losses = losses_at(loaded, states[rows.to(states.device), steps.to(states.device)], tokens)
    sums = torch.zeros(len(due), dtype=torch.float64).index_add(0, rows, losses.double().cpu())
    return (-sums).tolist()
