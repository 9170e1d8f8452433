"""What every importance has to get right: a layer that does nothing, one that does all the work, and no number at all.

A new importance is one line in `IMPORTANCES`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shoal.errors import MeasureError
from shoal.measurement.ablation_losses import Ablation
from shoal.measurement.blocks import block_slice
from shoal.measurement.collector import collect
from shoal.measurement.gate_gradients import gate_gradients
from shoal.measurement.metrics import metric_slices
from shoal.models import families
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel
from shoal.schema import SCOPES
from tiny_models import VOCABULARY, tiny

DEPTH = 5
IDLE, CRUCIAL = 1, 3
LENGTH = 12
Scores = np.ndarray
"""(L,): the importance of each layer; NaN where it was refused."""


def cosine_metric(name: str) -> Callable[[LoadedModel, PreparedBatch], Scores]:
    def measure(loaded: LoadedModel, batch: PreparedBatch) -> Scores:
        found = list(collect(loaded.decoder, loaded.layers, [batch]))
        columns = metric_slices(DEPTH)[name]
        total = sum(each.sums[SCOPES.index("response"), columns] for each in found)
        return total[block_slice(DEPTH, 1)]

    return measure


def gradient(quantity: str) -> Callable[[LoadedModel, PreparedBatch], Scores]:
    def measure(loaded: LoadedModel, batch: PreparedBatch) -> Scores:
        sums = next(sums for sums in gate_gradients(loaded, [batch]) if sums.quantity == quantity)
        return sums.means()[block_slice(DEPTH, 1)]

    return measure


def ablation(place: int) -> Callable[[LoadedModel, PreparedBatch], Scores]:
    def measure(loaded: LoadedModel, batch: PreparedBatch) -> Scores:
        found = Ablation(loaded).measure(batch, [(layer,) for layer in range(DEPTH)])
        return (found.loss - found.full[:, None], found.kl)[place].sum(0)

    return measure


IMPORTANCES: dict[str, Callable[[LoadedModel, PreparedBatch], Scores]] = {
    "angular": cosine_metric("angular"),
    "influence": cosine_metric("influence"),
    "gradient absolute": gradient("absolute"),
    "gradient clip-absolute": gradient("clip-absolute"),
    "gradient squared": gradient("squared"),
    "ablation loss": ablation(0),
    "ablation kl": ablation(1),
}

OF_CLIPS = ("gradient clip-absolute", "gradient squared")
"""The slope of the loss of a whole clip is near 0 for every gate where training has converged, as here; so it tells
what is idle, and not what is worth most."""


def successor(tokens: Tensor) -> Tensor:
    """The task: what follows a token is fixed by that token."""
    return (tokens * 7 + 3) % VOCABULARY


def written(rows: int, seed: int) -> Tensor:
    """(rows, LENGTH) token ids, each the successor of the one before it."""
    first = torch.randint(VOCABULARY, (rows,), generator=torch.Generator().manual_seed(seed))
    tokens = [first]
    for _ in range(LENGTH - 1):
        tokens.append(successor(tokens[-1]))
    return torch.stack(tokens, 1)


def train(model: torch.nn.Module, layers: list[int], *, rate: float = 0.01) -> None:
    """A few steps in which some layers alone learn the task."""
    model.requires_grad_(False)
    for at in layers:
        model.model.layers[at].requires_grad_(True)
    adam = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    for step in range(60):
        tokens = written(16, seed=step)
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), successor(tokens).flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    model.requires_grad_(False)


@pytest.fixture(scope="module")
def trained() -> LoadedModel:
    """A random model in which layer `IDLE` adds nothing, and `CRUCIAL` learnt nearly all that is known of the task."""
    model = tiny("llama", DEPTH)
    with torch.no_grad():
        # A contribution that outgrows the stream is all that the final norm passes on, and a gate on it changes
        # little: the gradient does not see it. Such a layer is not what is planted here.
        model.model.embed_tokens.weight *= 20
        model.lm_head.weight *= 3
        for at, layer in enumerate(model.model.layers):
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                weight *= 0.1 if at == CRUCIAL else 0.0
    train(model, [CRUCIAL])
    # The others start from nothing and learn to help: leaving out noise would be a gain, and so the idle layer not
    # the one that is missed least.
    train(model, sorted(set(range(DEPTH)) - {IDLE, CRUCIAL}), rate=0.003)
    return LoadedModel("tiny", Path(), model, None, None, families.find(model), "causal_lm")


def batch_of(loaded: LoadedModel, rows: int = 4) -> PreparedBatch:
    tokens = written(rows, seed=99)
    kinds = torch.full_like(tokens, int(Kind.TEXT), dtype=torch.uint8)
    kinds[:, 0] = int(Kind.PROMPT)
    embeds = loaded.model.get_input_embeddings()(tokens).detach()
    return PreparedBatch([f"u{row}" for row in range(rows)], embeds, kinds, tokens, ends=False)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_the_idle_layer_counts_least_and_the_crucial_one_most(name: str, trained: LoadedModel) -> None:
    scores = IMPORTANCES[name](trained, batch_of(trained))
    assert scores.shape == (DEPTH,)
    assert scores.argmin() == IDLE
    if name not in OF_CLIPS:
        assert scores.argmax() == CRUCIAL
    assert abs(scores[IDLE]) < 1e-3 * scores[CRUCIAL]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", IMPORTANCES)
def test_a_layer_that_gives_no_number_is_never_the_least(name: str, value: float, trained: LoadedModel) -> None:
    broken = copy.deepcopy(trained.model)
    broken.model.layers[2].mlp.down_proj.weight[0, 0] = value
    loaded = LoadedModel("broken", Path(), broken, None, None, trained.family, "causal_lm")
    try:
        scores = IMPORTANCES[name](loaded, batch_of(loaded))
    except MeasureError:
        return
    assert np.isnan(scores[2])
