"""The config must build what is in memory, or the model is refused before anything is written."""

from __future__ import annotations

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from full_run import examples
from shoal.errors import ModelError
from shoal.models.families import find
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.rebuild import check_rebuild
from tiny_models import BUILDERS, COMMON, tiny

removals = st.sets(st.integers(0, 5), min_size=0, max_size=5).map(sorted)


@settings(max_examples=examples(50), deadline=None)
@given(name=st.sampled_from(sorted(BUILDERS)), removed=removals)
def test_any_plan_on_any_architecture_rebuilds(name, removed):
    model = prune_in_place(tiny(name), removed)
    check_rebuild(model, find(model))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 6), ("layer_types", ["full_attention"] * 4)],
)
def test_a_config_that_does_not_follow_is_caught(field, value):
    model = prune_in_place(tiny("gemma3"), [0, 4])
    setattr(model.config, field, value)
    with pytest.raises(ModelError, match=r"would not load|but the decoder has 4 layers"):
        check_rebuild(model, find(model))


def test_a_layer_scaled_by_its_index_is_refused():
    config = transformers.DiffLlamaConfig(**{**COMMON, "num_hidden_layers": 4})
    model = prune_in_place(transformers.DiffLlamaForCausalLM(config), [1])
    with pytest.raises(ModelError, match="lambda_init"):
        check_rebuild(model, find(model))


def test_the_config_field_that_may_be_the_cause_is_named():
    config = transformers.GPTNeoXConfig(**{**COMMON, "num_hidden_layers": 4})
    model = transformers.GPTNeoXForCausalLM(config)
    model.gpt_neox.layers[2].mlp.act_scale = 3
    config.sliding_window_pattern = 2
    with pytest.raises(ModelError, match=r"layer 2 .* field sliding_window_pattern"):
        check_rebuild(model, find(model))
