"""One token for every row: as it comes, or as a recorded graph that is played again.

Played again, a step may read and write only tensors that stay where they are, and do nothing that depends on their
values. What changes from step to step (column, position, last token) is therefore in tensors that the step itself
moves on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from shoal.evaluation.engine.decode_state import DecodeState
from shoal.machine import out_of_memory

Play = Callable[[], None]
Capture = Callable[[Play, Play], Play]
"""Records what its first argument does to tensors; returns what does it again. It may be run in recording, and the
second argument then undoes what was run."""

WARM_UP = 2
"""Runs before a graph is recorded, so that libraries choose their kernels and allocate outside of it."""


class Steps(Protocol):
    """How rows go on by one token."""

    at_once: int
    """Steps after which tokens are worth reading: reading waits for the device."""
    tight: bool
    """Whether a step reads all columns below the width of the state."""

    def rows_for(self, active: int) -> int:
        """How many slots are run for `active` rows in the first slots."""

    def run(self, state: DecodeState, rows: int, count: int) -> list[list[int]]:
        """Run `count` steps of the first `rows` slots; returns `count` lists of `rows` tokens."""


def next_tokens(logits: Tensor) -> Tensor:
    """(B,) the best next token of every row from (B, 1, vocabulary).

    In float32, as `generate` does, so that ties in half precision are broken the same way.
    """
    best: Tensor = logits[:, -1].float().argmax(dim=-1)
    return best


class EagerSteps:
    """Steps as they come: only live columns are read and only rows that go on are run."""

    tight = False

    def __init__(self, lm: nn.Module, *, at_once: int) -> None:
        self._lm, self.at_once = lm, at_once

    def rows_for(self, active: int) -> int:
        """As many."""
        return active

    @torch.inference_mode()
    def run(self, state: DecodeState, rows: int, count: int) -> list[list[int]]:
        """See `Steps.run`."""
        columns = state.cache.columns
        columns.slots, columns.column, columns.rows = None, None, rows
        columns.start = state.end - state.live
        tokens = []
        for _ in range(count):
            state.mask[:rows, state.end] = 1
            logits = self._lm(
                input_ids=state.tokens[:rows],
                attention_mask=state.mask[:rows, columns.start : state.end + 1],
                position_ids=state.positions[:rows],
                past_key_values=state.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            tokens.append(next_tokens(logits))
            state.tokens[:rows, 0] = tokens[-1]
            state.positions[:rows] += 1
            state.advance(1)
        rows_of_tokens: list[list[int]] = torch.stack(tokens).tolist()
        return rows_of_tokens


class GraphSteps:
    """Steps recorded once for each number of rows and width, and played again.

    Args:
        lm: the model; its forward pass must not depend on values (`_can_compile_fullgraph`).
        at_once: see `Steps`.
        capture: makes a recording.
    """

    tight = True

    def __init__(self, lm: nn.Module, *, at_once: int, capture: Capture) -> None:
        self._lm, self.at_once, self._capture = lm, at_once, capture
        self._graphs: dict[tuple[int, int], Play] = {}
        self._recorded: Any = None
        self._column = self._step = self._history = torch.zeros(0)

    def rows_for(self, active: int) -> int:
        """The next power of two, so that there are few graphs."""
        return 1 << (active - 1).bit_length()

    @torch.inference_mode()
    def run(self, state: DecodeState, rows: int, count: int) -> list[list[int]]:
        """See `Steps.run`."""
        rows = min(rows, state.slots)
        self._begin(state)
        columns = state.cache.columns
        columns.slots, columns.column, columns.rows, columns.width = None, self._column, rows, state.width
        self._column.fill_(state.end)
        self._step.zero_()
        play = self._graphs.get((rows, state.width)) or self._record(state, rows)
        for _ in range(count):
            play()
        state.advance(count)
        tokens: list[list[int]] = self._history[:count, :rows].tolist()
        return tokens

    def _begin(self, state: DecodeState) -> None:
        """Recordings are of one state with its tensors as they are; another state or new tensors end them."""
        # By the tensors themselves: an address may be used again.
        tensors = (state.mask, *(layer.keys for layer in state.cache.layers))
        if self._recorded is not None and all(a is b for a, b in zip(self._recorded, tensors, strict=True)):
            return
        self._recorded = tensors
        self._graphs.clear()
        self._column, self._step = (torch.zeros(1, dtype=torch.long, device=state.device) for _ in range(2))
        self._history = torch.zeros((self.at_once, state.slots), dtype=torch.long, device=state.device)

    def _record(self, state: DecodeState, rows: int) -> Play:
        moving = (state.mask, state.tokens, state.positions, self._column, self._step)
        before = [tensor.clone() for tensor in moving]

        def step() -> None:
            self._one(state, rows)

        def undo() -> None:
            for tensor, value in zip(moving, before, strict=True):
                tensor.copy_(value)

        try:
            play = self._capture(step, undo)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            play = step  # a forward pass that looks at values cannot be recorded, but it can be run
        undo()
        self._graphs[rows, state.width] = play
        return play

    def _one(self, state: DecodeState, rows: int) -> None:
        state.mask.index_fill_(1, self._column, 1)
        logits = self._lm(
            input_ids=state.tokens[:rows],
            attention_mask=state.mask[:rows, : state.cache.columns.width],
            position_ids=state.positions[:rows],
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        best = next_tokens(logits)
        self._history[:, :rows].index_copy_(0, self._step, best[None])
        state.tokens[:rows, 0].copy_(best)
        state.positions[:rows].add_(1)
        self._column.add_(1)
        self._step.add_(1)


def cuda_graph(function: Play, undo: Play, pool: Any = None) -> Play:
    """Record `function` as a CUDA graph; it is run a few times first.

    Args:
        function: see `Capture`.
        undo: likewise.
        pool: memory that recordings share, from `torch.cuda.graph_pool_handle`.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            function()
            undo()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Of this thread only: another one may be embedding.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        function()
    replay: Play = graph.replay
    return replay
