"""The loop: rows enter free slots, all rows advance together, finished rows leave."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.evaluation.engine.cache import supported
from shoal.evaluation.engine.decode_state import DecodeState
from shoal.evaluation.engine.memory import PREFILL_POSITIONS
from shoal.evaluation.engine.steps import EagerSteps, GraphSteps, Steps, cuda_graph, next_tokens
from shoal.machine import out_of_memory, return_memory

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch

AT_ONCE = {"cpu": 1, "cuda": 4}
"""Steps between two looks at the tokens: a row may be run a few tokens too far, which are left out."""
REFILL = {"cpu": 0.25, "cuda": 0.125}
"""A prefill waits until this share of the slots is free, one at least: several rows cost less than one by one."""
KEPT = {"cpu": 1, "cuda": 4}
"""Engines at once: each holds a cache of keys and values; on CUDA making one again costs the recording of graphs."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row before it is decoded."""

    embeds: Tensor
    """(T, d), on the model's device, without padding."""
    limit: int
    """Most tokens, end token included."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A row after it is decoded."""

    row: int
    """Its index among the prompts."""
    tokens: list[int]
    """Without the end token."""
    truncated: bool
    """Whether it was cut at its limit before an end token came."""
    prefill_seconds: float
    """This row's share of the seconds of its prefill, up to and including the first token."""
    decode_seconds: float
    """This row's share of the seconds of the steps it was in."""


def prompts_of(batch: PreparedBatch, limits: Sequence[int]) -> list[Prompt]:
    """The rows of a left-padded batch, without padding."""
    lengths = batch.attention_mask.sum(1).tolist()
    width = batch.embeds.shape[1]
    return [
        Prompt(batch.embeds[row, width - length :], limit)
        for row, (length, limit) in enumerate(zip(lengths, limits, strict=True))
    ]


@dataclass(slots=True)
class RowState:
    """A row that is being decoded."""

    number: int
    limit: int
    prefill_seconds: float = 0.0
    since: float = 0.0
    """The engine's meter when its steps began."""
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def take(self, token: int, eos_ids: Collection[int]) -> None:
        """One more token; nothing after the end."""
        if not self.ended:
            self.ended = token in eos_ids
            if not self.ended:
                self.tokens.append(token)
                self.ended = self.left == 0

    @property
    def left(self) -> int:
        """Tokens it may still get."""
        return self.limit - len(self.tokens)


class Engine:
    """Greedy decoding with continuous batching: for every row the tokens of `generate(do_sample=False)`.

    Args:
        lm: a causal language model with `supported(lm)`, as it is while `run` runs (inside `pruned`).
        eos_ids: tokens that end a row; empty to decode every row to its limit.
        slots: rows at once, at most. Halved when memory runs out.
        steps: how rows go on; by default recorded graphs on CUDA where the model allows it.
    """

    def __init__(self, lm: nn.Module, *, eos_ids: Collection[int], slots: int, steps: Steps | None = None) -> None:
        if slots < 1:
            raise ValueError(f"there must be a slot: {slots}")
        self._lm, self._eos_ids, self.slots = lm, frozenset(eos_ids), slots
        self._steps = steps
        self._state: DecodeState | None = None
        self._rows: dict[int, RowState] = {}
        self._meter = 0.0
        """Seconds that a row which was in every step would have to answer for."""

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Finished]:
        """Decode all prompts; each is given once, when it is finished.

        Prompts are admitted in their order. Longest first keeps padding small and the end short.

        Raises:
            ValueError: a limit below 1.
            torch.OutOfMemoryError: one row alone is too much.
        """
        if any(prompt.limit < 1 for prompt in prompts):
            raise ValueError("every limit must be at least 1")
        if not prompts:
            return
        waiting = deque(range(len(prompts)))
        try:
            while waiting or self._rows:
                yield from self._advance_or_halve(prompts, waiting)
        finally:
            self._forget_rows()

    def _advance_or_halve(self, prompts: Sequence[Prompt], waiting: deque[int]) -> list[Finished]:
        """`_advance`; with half the slots where memory is short."""
        try:
            return self._advance(prompts, waiting)
        except RuntimeError as error:
            if self.slots == 1 or not out_of_memory(error):
                raise
        # Not in the handler: the error holds on to everything that was computed.
        self._halve_slots(waiting)
        return []

    @torch.inference_mode()
    def _advance(self, prompts: Sequence[Prompt], waiting: deque[int]) -> list[Finished]:
        """Admit rows, or run steps; returns the rows that are then done."""
        device = prompts[0].embeds.device
        self._steps = self._steps or default_steps(self._lm, device)
        self._state = self._state or DecodeState(self._lm, self.slots, device, tight=self._steps.tight)
        free = self.slots - len(self._rows)
        enough = min(len(waiting), max(1, int(REFILL.get(device.type, 0.0) * self.slots)))
        if waiting and (not self._rows or free >= enough):
            self._admit(prompts, waiting, free)
        else:
            self._step()
        return self._done()

    def _admit(self, prompts: Sequence[Prompt], waiting: deque[int], free: int) -> None:
        """Prefill as many waiting rows as fit.

        Clocks need not wait for a device here: the tokens have been read when they are looked at.
        """
        assert self._state is not None
        start = time.perf_counter()
        most = PREFILL_POSITIONS.get(self._state.device.type, min(PREFILL_POSITIONS.values()))
        numbers: list[int] = []
        longest = 0
        for number in waiting:
            longest = max(longest, len(prompts[number].embeds))
            if len(numbers) == free or (numbers and longest * (len(numbers) + 1) > most):
                break
            numbers.append(number)
        slots = [slot for slot in range(self.slots) if slot not in self._rows][: len(numbers)]
        first = self._prefill([prompts[number].embeds for number in numbers], slots)
        share = (time.perf_counter() - start) / len(numbers)
        for number, slot, token in zip(numbers, slots, first, strict=True):
            waiting.popleft()
            row = self._rows[slot] = RowState(number, prompts[number].limit, share, self._meter)
            row.take(token, self._eos_ids)

    def _prefill(self, embeds: Sequence[Tensor], slots: Sequence[int]) -> list[int]:
        """Run prompts into `slots`; returns the first token of each."""
        state = self._state
        assert state is not None
        lengths = [len(prompt) for prompt in embeds]
        longest = max(lengths)
        state.reserve(prompt=longest, steps=1)
        index = state.fill(slots, lengths)
        padded = embeds[0].new_zeros((len(embeds), longest, embeds[0].shape[1]))
        for row, prompt in enumerate(embeds):
            padded[row, longest - len(prompt) :] = prompt
        mask = state.mask[index, state.end - longest : state.end]
        state.cache.columns.slots = index
        output = self._lm(
            inputs_embeds=padded,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0) * mask,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        best = next_tokens(output.logits)
        state.tokens[index, 0] = best
        first: list[int] = best.tolist()
        return first

    def _step(self) -> None:
        """Run a few steps."""
        assert self._state is not None and self._steps is not None  # noqa: PT018
        start = time.perf_counter()
        active = len(self._rows)
        rows = min(self._steps.rows_for(active), self.slots)
        if max(self._rows) >= rows:
            self._compact(self._state)
        count = min(self._steps.at_once, *(row.left for row in self._rows.values()))
        self._state.reserve(prompt=0, steps=count)
        for tokens in self._steps.run(self._state, rows, count):
            for slot, row in self._rows.items():
                row.take(tokens[slot], self._eos_ids)
        self._meter += (time.perf_counter() - start) / active

    def _compact(self, state: DecodeState) -> None:
        """Move rows into free slots, so that the first ones hold all of them."""
        for target in range(len(self._rows)):
            if target not in self._rows:
                source = max(self._rows)
                state.copy_slot(source, target)
                self._rows[target] = self._rows.pop(source)

    def _done(self) -> list[Finished]:
        """Rows that are done; their slots are free then."""
        assert self._state is not None
        done = [slot for slot, row in self._rows.items() if row.ended]
        if done:
            self._state.free(done)
        rows = [self._rows.pop(slot) for slot in done]
        return [
            Finished(row.number, row.tokens, row.left == 0, row.prefill_seconds, self._meter - row.since)
            for row in rows
        ]

    def _halve_slots(self, waiting: deque[int]) -> None:
        """Half the slots, and the rows that were in them from their beginning."""
        waiting.extendleft(sorted((row.number for row in self._rows.values()), reverse=True))
        self._forget_rows()
        self._state = None
        self.slots = max(1, self.slots // 2)
        return_memory()

    def _forget_rows(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        if self._state is not None:
            self._state.lengths = [0] * self.slots


def default_steps(lm: nn.Module, device: torch.device) -> Steps:
    """Recorded graphs on CUDA for classes that declare a forward pass without surprises, else plain steps."""
    at_once = AT_ONCE.get(device.type, 1)
    if device.type != "cuda" or not getattr(lm, "_can_compile_fullgraph", False):
        return EagerSteps(lm, at_once=at_once)
    pool = torch.cuda.graph_pool_handle()
    return GraphSteps(lm, at_once=at_once, capture=partial(cuda_graph, pool=pool))


class EngineCache:
    """An engine for every system, made when it is first asked for; the one not used for longest goes first.

    Args:
        slots: rows at once, at most.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._kept: OrderedDict[Hashable, Engine] = OrderedDict()

    def get(self, system: Hashable, lm: nn.Module, device: str, *, eos_ids: Collection[int]) -> Engine | None:
        """The engine of a system; None if the cache of its model is of another kind.

        Args:
            system: tells one from another: the model and what is removed from it.
            lm: its language model, as it is now (inside `pruned`).
            device: the type of its device.
            eos_ids: tokens that end a row.
        """
        if system not in self._kept:
            if not supported(lm):
                return None
            # Where memory was too short for one system, it will be for the next.
            slots = min([self.slots, *(engine.slots for engine in self._kept.values())])
            while len(self._kept) >= KEPT.get(device, 1):
                self.slots = min(self.slots, self._kept.popitem(last=False)[1].slots)
            self._kept[system] = Engine(lm, eos_ids=eos_ids, slots=slots)
        self._kept.move_to_end(system)
        return self._kept[system]
