"""The decode engine on every architecture there is a tiny model of."""

from __future__ import annotations

import pytest
import torch

from shoal.evaluation.generate import greedy
from shoal.models.batch import Kind, PreparedBatch
from shoal.pruning.in_memory import pruned
from tiny_models import BUILDERS, prompts, tiny


@pytest.mark.parametrize("removed", [[], [1, 2]], ids=["whole", "pruned"])
@pytest.mark.parametrize("name", BUILDERS)
def test_batched_and_pruned_equals_generate_alone(name, removed):
    model = tiny(name)
    inputs = prompts(rows=3, padding=4)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with pruned(model, removed), torch.inference_mode():
        alone = [
            model.generate(row[keep.bool()][None], do_sample=False, max_new_tokens=8, pad_token_id=0, eos_token_id=-1)[
                0, int(keep.sum()) :
            ].tolist()
            for row, keep in zip(ids, mask, strict=True)
        ]
        embeds = model.get_input_embeddings()(ids) * mask[..., None]
        kinds = (mask * int(Kind.PROMPT)).to(torch.uint8)
        batch = PreparedBatch(["a", "b", "c"], embeds, kinds, ids)
        ends = {alone[0][2], alone[1][5]}
        decoded = greedy(model, batch, eos_ids=ends, max_new_tokens=8)
    assert decoded.tokens == [_until(tokens, ends) for tokens in alone]


def _until(tokens, ends):
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]
