"""Choose the block by what healing leaves: every block of n layers is healed in closed form and then judged.

The block that changes the states least need not be the one that is healed best. Before a single cut nothing has
changed, so one forward pass over the clips gives the sums of `shoal.healing.linear` for all blocks at once; each block
is then healed by `linear`, in memory, and judged by the loss on clips of other speakers. Memory: the sums of one block
are d_ff² float64 numbers (Llama 3.1 8B: 1.6 GB); blocks for which it does not suffice take another pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from shoal.decoder.batches import prepared_batches
from shoal.decoder.logits import losses_at
from shoal.decoder.loss_targets import targets_of
from shoal.decoder.states import decoder_arguments, last_states
from shoal.errors import ModelError, UsageError
from shoal.healing.cuts import Cut
from shoal.healing.down_projection import down_projection
from shoal.healing.linear import CutFit, LinearFits, folded_in
from shoal.healing.settings import LinearSettings
from shoal.machine import free_memory
from shoal.progress import Progress, report_progress
from shoal.pruning.in_memory import pruned, removal_problem
from shoal.schema import Plan
from shoal.selection.choose import manual
from shoal.wording import plural

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task
    from shoal.terms import InputKind

STRATEGY = "healed"
NAMED = 3
"""Blocks that a plan's note names."""


@dataclass(frozen=True, slots=True)
class HealedBlock:
    """One block of layers, and what is left of the model without it."""

    layers: list[int]
    loss: float
    """Nats a token of the response after healing, on clips that it was not healed on."""


def choose_healed(
    model: LoadedModel,
    fit: Dataset,
    judge: Dataset,
    task: Task,
    size: int,
    *,
    input: InputKind = "speech",
    settings: LinearSettings | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The plan for the block of `size` layers without which, healed by `linear`, the loss is least.

    Blocks that begin with the first layer or end with the last are no candidates: nothing stands before the one, and
    plans keep the other.

    Args:
        model: unpruned; unchanged afterwards.
        fit: clips to heal on.
        judge: clips to judge on, of other speakers.
        task: makes prompt and response.
        size: number of layers.
        input: what stands in the place of the audio.
        settings: of the closed form; without a ridge, that of `linear`'s default.
        progress: told ("fit", passes done, passes) and ("judge healed blocks", done, in all).

    Raises:
        UsageError: there is no such block.
        ModelError: no block can be healed in closed form.
    """
    settings = settings or LinearSettings()
    found = healed_blocks(model, fit, judge, task, size, input=input, settings=settings, progress=progress)
    ranked = sorted(found, key=lambda block: block.loss)
    first = "; ".join(f"layers {b.layers[0]}-{b.layers[-1]} {b.loss:.3f}" for b in ranked[:NAMED])
    note = (
        f"chosen by the loss that linear healing leaves, on {plural(len(judge.rows), 'clip')} that it was not healed "
        f"on: {first} nats a token (of {plural(len(ranked), 'block')})"
    )
    plan = manual(model.ref, len(model.layers), ranked[0].layers)
    return plan.model_copy(update={"strategy": STRATEGY, "note": note})


def healed_blocks(
    model: LoadedModel,
    fit: Dataset,
    judge: Dataset,
    task: Task,
    size: int,
    *,
    input: InputKind,
    settings: LinearSettings,
    progress: Progress | None = None,
) -> list[HealedBlock]:
    """Every block of `size` layers that can be healed, in their order; see `choose_healed`."""
    candidates = _candidates(model, size)
    judged = list(prepared_batches(model, judge, task, input, 8))
    blocks: list[HealedBlock] = []
    report_progress(progress, "judge healed blocks", 0, len(candidates))
    for fits in _fitted(model, fit, task, candidates, input, settings):
        for cut_fit in fits:
            solution, _ = cut_fit.solve(settings.ridge)
            layers = cut_fit.cut.layers
            with folded_in(cut_fit.projection.proved, cut_fit.folded(solution)), pruned(model.model, layers):
                blocks.append(HealedBlock(layers, _loss(model, judged)))
            report_progress(progress, "judge healed blocks", len(blocks), len(candidates))
    return blocks


def _candidates(model: LoadedModel, size: int) -> list[Cut]:
    """The blocks of `size` layers that can be removed and healed, with a layer before and a layer behind them."""
    depth = len(model.layers)
    if not 1 <= size < depth - 1:
        raise UsageError(
            f"there is no block of {plural(size, 'layer')} with a layer before and one behind it among {depth}",
            where="--layers",
            fix=f"give 1 to {depth - 2}",
        )
    cuts, refused = [], ""
    for start in range(1, depth - size):
        cut = Cut(start, start + size, start - 1, start)
        try:
            down_projection(model, cut)
        except ModelError as error:
            refused = error.what
            continue
        problem = removal_problem(model.model, cut.layers, family=model.family)
        refused = problem or refused
        if problem is None:
            cuts.append(cut)
    if not cuts:
        where = type(model.model).__name__
        raise ModelError(f"no block of {plural(size, 'layer')} can be removed and healed: {refused}", where=where)
    return cuts


def _fitted(
    model: LoadedModel, data: Dataset, task: Task, cuts: Sequence[Cut], input: InputKind, settings: LinearSettings
) -> Iterator[list[CutFit]]:
    """The fits of as many blocks at a time as there is memory for."""
    left = list(cuts)
    while left:
        room = max(1, free_memory() // 2 // CutFit(left[0], down_projection(model, left[0])).bytes_of_sums)
        part, left = left[:room], left[room:]
        fits = LinearFits(model, part, fit=settings.fit, weighting=settings.weighting)
        for batch in prepared_batches(model, data, task, input, 8):
            fits.add(batch)
        yield fits.cuts


@torch.inference_mode()
def _loss(model: LoadedModel, batches: Iterable[PreparedBatch]) -> float:
    """Cross-entropy of the responses, nats a token."""
    total, tokens = 0.0, 0
    for batch in batches:
        targets = targets_of(batch, "response", model.eos_ids)
        decoder = model.decoder
        states = last_states(decoder(**decoder_arguments(decoder, batch), use_cache=False))
        losses = losses_at(model, states[targets.rows, targets.positions], targets.tokens)
        total, tokens = total + float(losses.double().sum()), tokens + len(losses)
    return total / tokens
