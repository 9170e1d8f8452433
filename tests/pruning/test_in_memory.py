"""Pruning in memory: what is computed, and that everything comes back."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from full_run import examples
from shoal.errors import ModelError, PlanError
from shoal.models.families import find
from shoal.pruning.in_memory import prune_in_place, pruned
from shoal.schema import Plan, Provenance
from tiny_models import BUILDERS, prompts, tiny


def state(model) -> dict:
    """Everything pruning may touch, by identity where identity matters."""
    family = find(model)
    layers = family.layers(model)
    return {
        "list": id(layers),
        "layers": [id(layer) for layer in layers],
        "names": list(model.state_dict()),
        "config": copy.deepcopy(model.config.to_dict()),
        "vars": {name: id(value) for name, value in vars(family.text_config(model)).items()},
        "indices": [[(name, value) for _, name, value in family.layer_indices(layer)] for layer in layers],
        "attributes": {k: v for k, v in vars(family.decoder(model)).items() if isinstance(v, int)},
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
    }


def uncached(model, inputs, steps=4) -> torch.Tensor:
    """Greedy tokens by a full forward for each step: the slow reference for cached generation."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(steps):
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        extra = {} if model.config.model_type == "opt" else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return ids


def skip(module: nn.Module, args: tuple, kwargs: dict, output):
    """A forward hook: the layer hands on what it was given."""
    given = args[0] if args else kwargs["hidden_states"]
    return given if torch.is_tensor(output) else (given, *output[1:])


def plans(depth: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(0, depth - 1), min_size=1, max_size=depth - 1).map(sorted)


@pytest.mark.parametrize("name", BUILDERS)
def test_restores_exactly_even_after_an_error(name):
    model = tiny(name)
    before, inputs = state(model), prompts()
    expected = model(**inputs).logits
    with contextlib.suppress(RuntimeError), pruned(model, [1, 2, 4]):
        assert len(find(model).layers(model)) == 3
        raise RuntimeError
    assert state(model) == before
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", BUILDERS)
def test_generation_with_cache_equals_without(name):
    model, inputs = tiny(name), prompts()
    with torch.no_grad(), pruned(model, [1, 3]):
        cached = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert torch.equal(cached, uncached(model, inputs))


@settings(max_examples=examples(40), deadline=None)
@given(name=st.sampled_from(sorted(BUILDERS)), removed=plans(6))
def test_equals_skipping_the_layers_by_hand(name, removed):
    model, inputs = tiny(name), prompts()
    layers = find(model).layers(model)

    with torch.no_grad():
        with pruned(model, removed):
            fast = model(**inputs, use_cache=False).logits
        handles = [layers[index].register_forward_hook(skip, with_kwargs=True) for index in removed]
        slow = model(**inputs, use_cache=False).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-6)


def test_contexts_nest_and_count_what_the_outer_one_left():
    model, inputs = tiny("gemma3"), prompts()
    before = state(model)
    with pruned(model, [1, 4]):
        middle = state(model)
        with pruned(model, [1]):
            nested = model(**inputs).logits
        assert state(model) == middle
    with pruned(model, [1, 2, 4]):
        torch.testing.assert_close(model(**inputs).logits, nested, rtol=0, atol=0)
    assert state(model) == before


def test_config_follows_the_layers_that_stay():
    model = tiny("gemma3")
    types = list(model.config.layer_types)
    prune_in_place(model, [0, 3])
    assert model.config.num_hidden_layers == 4
    assert model.config.layer_types == [types[i] for i in (1, 2, 4, 5)]
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]


def test_removing_nothing_changes_nothing():
    model = tiny("llama")
    before = state(model)
    with pruned(model, []):
        assert state(model) == before


def plan(depth: int, layers: list[int]) -> Plan:
    return Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=depth, layers=layers)


def test_a_plan_for_another_depth_is_refused():
    with pytest.raises(PlanError, match="8 layers but the model has 6"), pruned(tiny("llama"), plan(8, [2])):
        pass


@pytest.mark.parametrize("layers", [[6], [-1], [2, 1], [1, 1], [0, 1, 2, 3, 4, 5]])
def test_layers_that_do_not_fit_are_refused_in_one_line(layers):
    model = tiny("llama")
    before = state(model)
    with pytest.raises(PlanError) as caught:
        prune_in_place(model, layers)
    assert "\n" not in str(caught.value)
    assert state(model) == before


def test_a_failure_half_way_leaves_the_model_as_it_was():
    model = tiny("llama")
    model.model.layers[5].self_attn.layer_idx = 9
    before = state(model)
    with pytest.raises(ModelError, match="layer_idx is 9 in layer 5"):
        prune_in_place(model, [1])
    assert state(model) == before
