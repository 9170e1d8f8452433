"""Layers without their attention or MLP: what is computed, with a cache and without, and that everything comes back."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from shoal.errors import ModelError, PlanError
from shoal.evaluation.generate import greedy
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.families import find
from shoal.pruning.in_memory import prune_in_place, pruned
from shoal.schema import Plan, Provenance
from tiny_audio import BUILDS
from tiny_models import BUILDERS, prompts, tiny

PARTS = ("attention", "mlp")
LAST_MODULE = {
    "gemma2": {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"},
    "gemma3": {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"},
    "gpt_neox": {"attention": "attention", "mlp": "mlp"},
    "opt": {"attention": "self_attn", "mlp": "fc2"},
    "gpt2": {"attention": "attn", "mlp": "mlp"},
    "gpt_neo": {"attention": "attn", "mlp": "mlp"},
}
"""Where the contribution of each part comes from, as the classes' own source code says."""
USUAL = {"attention": "self_attn", "mlp": "mlp"}


def plan(*layers: int, part: str, depth: int = 6) -> Plan:
    about = Provenance(shoal="0")
    return Plan(provenance=about, model_ref="tiny", depth=depth, layers=list(layers), part=part)


def nothing(_: nn.Module, __: tuple, output):
    """A forward hook: the module ran, and what it gave is not added."""
    return torch.zeros_like(output) if torch.is_tensor(output) else (torch.zeros_like(output[0]), *output[1:])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", BUILDERS)
def test_equals_adding_nothing_by_hand(name, part):
    model, inputs = tiny(name), prompts()
    layers = find(model).layers(model)
    with torch.no_grad():
        with pruned(model, plan(1, 4, part=part)):
            fast = model(**inputs, use_cache=False).logits
        module = LAST_MODULE.get(name, USUAL)[part]
        handles = [getattr(layers[at], module).register_forward_hook(nothing) for at in (1, 4)]
        slow = model(**inputs, use_cache=False).logits
        for handle in handles:
            handle.remove()
        whole = model(**inputs, use_cache=False).logits
    assert torch.equal(fast, slow)
    assert not torch.allclose(whole, slow)


@pytest.mark.parametrize("name", ["granite", "gemma3"])
def test_what_is_left_of_a_layer_is_its_input_and_the_other_part(name):
    model, seen = tiny(name, 2), {}
    layer = model.model.layers[0]
    layer.register_forward_hook(lambda _, args, output: seen.update(x=args[0], y=output))
    with torch.no_grad():
        with pruned(model, [0], part="attention"):
            model(**prompts())
        x = seen["x"]
        if name == "granite":
            expected = x + layer.residual_multiplier * layer.mlp(layer.post_attention_layernorm(x))
        else:
            inner = layer.mlp(layer.pre_feedforward_layernorm(x))
            expected = x + layer.post_feedforward_layernorm(inner)
    assert torch.equal(seen["y"], expected)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("removed", [[0], [0, 1, 3]])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "qwen2", "opt", "gpt2", "mistral"])
def test_decoding_with_a_cache_equals_decoding_without(name, removed, part):
    model, inputs = tiny(name), prompts()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    batch = PreparedBatch(
        ["a", "b"],
        model.get_input_embeddings()(ids).detach(),
        torch.where(mask.bool(), int(Kind.PROMPT), int(Kind.PAD)).to(torch.uint8),
        ids,
    )
    with torch.no_grad(), pruned(model, removed, part=part):
        cached = greedy(model, batch, eos_ids=(), max_new_tokens=6).tokens
        for _ in range(6):
            positions = {} if name == "opt" else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **positions).logits[:, -1]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
    assert cached == ids[:, -6:].tolist()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["WhisperForConditionalGeneration", "MoonshineForConditionalGeneration"])
def test_a_model_that_hears_by_cross_attention_still_does(name, part):
    model = BUILDS[name].build(4)
    inputs = find(model).silent_inputs(model)
    quieter = {key: value * 0 if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.no_grad(), pruned(model, [0, 1], part=part):
        heard = model(**inputs, use_cache=False).logits
        assert not torch.allclose(heard, model(**quieter, use_cache=False).logits)
        options = {"max_new_tokens": 5, "do_sample": False}
        cached = model.generate(**inputs, **options, use_cache=True)
        assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", BUILDERS)
def test_restores_exactly_even_after_an_error(name, part):
    model, inputs = tiny(name), prompts()
    before, names = list(model.modules()), list(model.state_dict())
    expected = model(**inputs).logits
    with contextlib.suppress(RuntimeError), pruned(model, [0, 2], part=part):
        assert len(list(model.parameters())) < len(names)
        raise RuntimeError
    assert [id(module) for module in model.modules()] == [id(module) for module in before]
    assert list(model.state_dict()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(**inputs).logits, expected)


def test_contexts_nest():
    model, inputs = tiny("gemma3"), prompts()
    with torch.no_grad():
        expected = model(**inputs).logits
        with pruned(model, [1], part="mlp"), pruned(model, [1], part="attention"), pruned(model, [0]):
            nested = model(**inputs).logits
        with pruned(model, [0, 1]):
            # Layer 1 has nothing left to add.
            torch.testing.assert_close(model(**inputs).logits, nested)
        assert torch.equal(model(**inputs).logits, expected)


def test_a_plan_for_another_depth_is_refused():
    with pytest.raises(PlanError, match="8 layers"), pruned(tiny("llama"), plan(1, part="mlp", depth=8)):
        pass


def test_a_part_cannot_go_for_good():
    with pytest.raises(PlanError, match="only the MLP") as caught:
        prune_in_place(tiny("llama"), plan(1, part="mlp"))
    assert "\n" not in str(caught.value)


def test_a_model_with_other_layers_is_refused():
    model = BUILDS["Nemotron3_5TranscribeForConditionalGeneration"].build(6)
    with (
        pytest.raises(ModelError, match="NemotronHBlock: layers are not attention"),
        pruned(model, [1], part="mlp"),
    ):
        pass


def test_an_attention_whose_keys_others_read_stays():
    model = BUILDS["Gemma4ForConditionalGeneration"].build(6)
    layers = find(model).layers(model)
    source = next(at for at, layer in enumerate(layers) if layer.self_attn.store_full_length_kv)
    with pytest.raises(ModelError, match="later layers read"), pruned(model, [source], part="attention"):
        pass
    with pruned(model, [source], part="mlp"):
        pass
