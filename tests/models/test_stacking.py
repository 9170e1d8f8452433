from __future__ import annotations

import pytest
import torch

from shoal.errors import ModelError
from shoal.models.batch import Kind, PreparedBatch, stacked


def single(name, length, **more):
    embeds = torch.randn(1, length, 4)
    kinds = torch.full((1, length), int(Kind.TEXT), dtype=torch.uint8)
    call = {"inputs_embeds": embeds, "attention_mask": torch.ones(1, length)} | more
    return PreparedBatch([name], embeds, kinds, torch.arange(length)[None], call=call)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_padded_to_the_longest(side):
    parts = [single("a", 3), single("b", 5)]
    batch = stacked(parts, side)
    assert batch.ids == ["a", "b"]
    here = slice(2, 5) if side == "left" else slice(0, 3)
    assert torch.equal(batch.embeds[0, here], parts[0].embeds[0])
    assert torch.equal(batch.embeds[1], parts[1].embeds[0])
    assert batch.token_ids[0, here].tolist() == [0, 1, 2]
    assert batch.attention_mask.sum(1).tolist() == [3, 5]
    assert torch.equal(batch.call["attention_mask"], batch.attention_mask)


def test_a_call_with_more_than_a_mask_is_refused():
    with pytest.raises(ModelError, match="position_ids"):
        stacked([single("a", 3), single("b", 5, position_ids=torch.arange(5)[None])], "left")
