"""Real pretrained models: pruned on disk and verified; equal to the model in memory on real text too."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import shoal
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune
from shoal.schema.verification import VerificationReport
from shoal.selection import manual

pytestmark = [pytest.mark.weights, pytest.mark.slow]
TEXT = "She had your dark suit in greasy wash water all year, and the capital of France is"


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("smollm2-135m-instruct", [20, 21, 22]),
        pytest.param("gemma-3-270m", [6, 11], marks=pytest.mark.full),
    ],
)
def test_a_pruned_checkpoint_is_the_model_in_memory(tmp_path, name, removed):
    loaded = shoal.load(f"pkg:{name}", dtype="float32")
    depth = loaded.info().depth
    out = prune(loaded, manual(loaded.ref, depth, removed), tmp_path / "out")
    assert VerificationReport.load(out / "shoal-verification.json").passed
    again = AutoModelForCausalLM.from_pretrained(out)
    assert len(again.model.layers) == again.config.num_hidden_layers == depth - len(removed)
    inputs = AutoTokenizer.from_pretrained(out)(TEXT, return_tensors="pt")
    with torch.no_grad():
        here = again(**inputs).logits
        with pruned(loaded.model, removed):
            torch.testing.assert_close(here, loaded.model(**inputs).logits, rtol=0, atol=1e-5)
