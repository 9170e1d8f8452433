"""The loop: rows are let into free slots, all rows go on together, finished rows leave."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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
    """Its place among the prompts."""
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
class _Row:
    """A row in a slot."""

    number: int
    limit: int
    prefill_seconds: float
    since: float
    """The meter when its steps began."""
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
        self._board: DecodeState | None = None
        self._rows: dict[int, _Row] = {}
        self._meter = 0.0
        """Seconds that a row which was in every step would have to answer for."""

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Finished]:
        """Decode all prompts; each is given once, when it is finished.

        Prompts are let in in the order they have. Longest first keeps padding small and the end short.

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
                yield from self._go_on(prompts, waiting)
        finally:
            self._leave()

    def _go_on(self, prompts: Sequence[Prompt], waiting: deque[int]) -> list[Finished]:
        """`_advance`; with half the slots where memory is short."""
        try:
            return self._advance(prompts, waiting)
        except RuntimeError as error:
            if self.slots == 1 or not out_of_memory(error):
                raise
        # Not in the handler: the error holds on to everything that was computed.
        self._start_again(waiting)
        return []

    @torch.inference_mode()
    def _advance(self, prompts: Sequence[Prompt], waiting: deque[int]) -> list[Finished]:
        """Let rows in, or run steps; returns the rows that are then done."""
        device = prompts[0].embeds.device
        self._steps = self._steps or default_steps(self._lm, device)
        self._board = self._board or DecodeState(self._lm, self.slots, device, tight=self._steps.tight)
        free = self.slots - len(self._rows)
        enough = min(len(waiting), max(1, int(REFILL.get(device.type, 0.0) * self.slots)))
        if waiting and (not self._rows or free >= enough):
            self._let_in(prompts, waiting, free)
        else:
            self._step()
        return self._done()

    def _let_in(self, prompts: Sequence[Prompt], waiting: deque[int], free: int) -> None:
        """Prefill as many waiting rows as fit.

        Clocks need not wait for a device here: the tokens have been read when they are looked at.
        """
        assert self._board is not None
        start = time.perf_counter()
        most = PREFILL_POSITIONS.get(self._board.device.type, min(PREFILL_POSITIONS.values()))
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
            row = self._rows[slot] = _Row(number, prompts[number].limit, share, self._meter)
            row.take(token, self._eos_ids)

    def _prefill(self, embeds: Sequence[Tensor], slots: Sequence[int]) -> list[int]:
        """Run prompts into `slots`; returns the first token of each."""
        board = self._board
        assert board is not None
        lengths = [len(each) for each in embeds]
        longest = max(lengths)
        board.make_room(prompt=longest, steps=1)
        index = board.fill(slots, lengths)
        padded = embeds[0].new_zeros((len(embeds), longest, embeds[0].shape[1]))
        for row, each in enumerate(embeds):
            padded[row, longest - len(each) :] = each
        mask = board.mask[index, board.end - longest : board.end]
        place = board.cache.place
        place.slots = index
        output = self._lm(
            inputs_embeds=padded,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0) * mask,
            past_key_values=board.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        best = next_tokens(output.logits)
        board.tokens[index, 0] = best
        found: list[int] = best.tolist()
        return found

    def _step(self) -> None:
        """Run a few steps."""
        assert self._board is not None and self._steps is not None  # noqa: PT018
        start = time.perf_counter()
        active = len(self._rows)
        rows = min(self._steps.rows_for(active), self.slots)
        if max(self._rows) >= rows:
            self._close_ranks(self._board)
        count = min(self._steps.at_once, *(row.left for row in self._rows.values()))
        self._board.make_room(prompt=0, steps=count)
        for tokens in self._steps.run(self._board, rows, count):
            for slot, row in self._rows.items():
                row.take(tokens[slot], self._eos_ids)
        self._meter += (time.perf_counter() - start) / active

    def _close_ranks(self, board: DecodeState) -> None:
        """Move rows into free slots, so that the first ones hold all of them."""
        for target in range(len(self._rows)):
            if target not in self._rows:
                source = max(self._rows)
                board.copy_slot(source, target)
                self._rows[target] = self._rows.pop(source)

    def _done(self) -> list[Finished]:
        """Rows that are done; their slots are free then."""
        assert self._board is not None
        done = [slot for slot, row in self._rows.items() if row.ended]
        if done:
            self._board.free(done)
        rows = [self._rows.pop(slot) for slot in done]
        return [
            Finished(row.number, row.tokens, row.left == 0, row.prefill_seconds, self._meter - row.since)
            for row in rows
        ]

    def _start_again(self, waiting: deque[int]) -> None:
        """Half the slots, and the rows that were in them from their beginning."""
        waiting.extendleft(sorted((row.number for row in self._rows.values()), reverse=True))
        self._leave()
        self._board = None
        self.slots = max(1, self.slots // 2)
        return_memory()

    def _leave(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        if self._board is not None:
            self._board.lengths = [0] * self.slots


def default_steps(lm: nn.Module, device: torch.device) -> Steps:
    """Recorded graphs on CUDA for classes that declare a forward pass without surprises, else plain steps."""
    at_once = AT_ONCE.get(device.type, 1)
    if device.type != "cuda" or not getattr(lm, "_can_compile_fullgraph", False):
        return EagerSteps(lm, at_once=at_once)
    pool = torch.cuda.graph_pool_handle()
    return GraphSteps(lm, at_once=at_once, capture=partial(cuda_graph, pool=pool))
