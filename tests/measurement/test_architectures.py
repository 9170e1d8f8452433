"""The collector on every tiny architecture: padding changes nothing, and every boundary is seen."""

from __future__ import annotations

import pytest
import torch

from families_record import note
from shoal.measurement.collector import UtteranceSums, collect
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.families import find
from tiny_models import BUILDERS, VOCABULARY, tiny

LENGTHS = (9, 5, 7)


def batch_of(model: torch.nn.Module, lengths: tuple[int, ...], side: str, first: int = 0) -> PreparedBatch:
    table = model.get_input_embeddings()
    longest = max(lengths)
    embeds = torch.zeros(len(lengths), longest, table.weight.shape[1])
    kinds = torch.zeros(len(lengths), longest, dtype=torch.uint8)
    for row, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(first + row))
        at = slice(longest - length, None) if side == "left" else slice(0, length)
        embeds[row, at] = table(ids).detach()
        kinds[row, at] = torch.tensor([Kind.PROMPT, *[Kind.AUDIO] * (length - 2), Kind.TEXT], dtype=torch.uint8)
    names = [f"u{first + row}" for row in range(len(lengths))]
    return PreparedBatch(names, embeds, kinds, torch.full_like(kinds, -1, dtype=torch.long))


def run(model: torch.nn.Module, batches: list[PreparedBatch]) -> list[UtteranceSums]:
    family = find(model)
    return list(collect(family.decoder(model), family.layers(model), batches))


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_what_each_clip_gives_alone(name: str, side: str) -> None:
    model = tiny(name, 4)
    together = run(model, [batch_of(model, LENGTHS, side)])
    alone = run(model, [batch_of(model, (length,), "right", first=row) for row, length in enumerate(LENGTHS)])
    for a, b in zip(together, alone, strict=True):
        assert a.id == b.id
        assert (a.counts == b.counts).all()
        assert torch.from_numpy(a.sums).allclose(torch.from_numpy(b.sums), atol=1e-4)
    note(type(model).__name__, audit=["text"])
