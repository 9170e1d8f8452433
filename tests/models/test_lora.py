"""Low-rank layers: exactly where they were asked for, without a trace when they are merged."""

from __future__ import annotations

import pytest
import torch

from shoal.errors import ModelError
from shoal.models.lora import add_lora, exactly, lora_layers, lora_state, merge, merged
from tiny_models import prompts, tiny


def logits(model):
    with torch.no_grad():
        return model(**prompts()).logits.float()


def trained(model):
    """As after training: the updates do something."""
    generator = torch.Generator().manual_seed(0)
    for _, layer in lora_layers(model):
        weight = layer.lora_B["default"].weight
        weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def test_only_the_named_layers_are_adapted_and_nothing_else_changes():
    model = tiny("llama", 12)
    before = logits(model)
    model.requires_grad_(False)
    model.model.layers[3].mlp.requires_grad_(True)
    names = ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    count = add_lora(model, names, rank=4, alpha=8.0, dropout=0.5)
    assert [name for name, _ in lora_layers(model)] == names
    assert count == 4 * (32 + 32) + 4 * (48 + 32)
    assert torch.equal(logits(model), before)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trainable if ".lora_" not in name} == {
        f"model.layers.3.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    assert sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name) == count


def test_a_name_is_not_the_end_of_another():
    """The pattern that goes into the file picks by full names: layer 1 is not layer 11, `x.q` not `y.x.q`."""
    import re

    pattern = exactly(["layers.1.q", "layers.2.q"])
    assert [
        name for name in ("layers.1.q", "layers.11.q", "a.layers.1.q", "layersX1.q") if re.fullmatch(pattern, name)
    ] == ["layers.1.q"]


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("qwen2", ["model.layers.1.self_attn.q_proj", "model.layers.5.mlp.up_proj"]),
        ("gpt2", ["transformer.h.1.attn.c_attn", "transformer.h.2.mlp.c_fc", "transformer.h.2.mlp.c_proj"]),
        ("qwen3_moe", ["model.layers.1.self_attn.q_proj", "model.layers.3.mlp.down_proj"]),
    ],
)
@pytest.mark.parametrize("rslora", [False, True])
def test_merged_it_computes_what_it_did(architecture, names, rslora):
    model = tiny(architecture)
    before = logits(model)
    add_lora(model, names, rank=4, alpha=8, rslora=rslora)
    adapted = logits(trained(model))
    assert not torch.allclose(adapted, before, atol=1e-3)
    assert set(lora_state(model)) == {f"{name}.lora_{half}.weight" for name in names for half in "AB"}
    with merged(model) as count:
        assert count == len(names)
        torch.testing.assert_close(logits(model), adapted, rtol=0, atol=1e-5)
        assert not list(lora_layers(model))
    assert torch.equal(logits(model), adapted)
    merge(model, "tiny")
    torch.testing.assert_close(logits(model), adapted, rtol=0, atol=1e-5)
    assert not any("lora" in name for name in model.state_dict())
    with merged(model) as count:
        assert count == 0


def test_half_precision_is_merged_with_one_rounding():
    model = tiny("llama").to(torch.bfloat16)
    name = "model.layers.1.mlp.down_proj"
    add_lora(model, [name], rank=4, alpha=8)
    assert all(tensor.dtype == torch.float32 for tensor in lora_state(trained(model)).values())
    state, weight = lora_state(model), model.get_submodule(name).base_layer.weight.clone()
    delta = 2 * state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    with merged(model):
        assert torch.equal(model.get_submodule(name).weight, (weight.float() + delta).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.layers.9.mlp.down_proj", "no such module"),
        ("model.layers.1.input_layernorm", "needs a Linear or Conv1D"),
        ("down_proj", "no such module"),
        ("lm_head", "tied"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(name, what):
    model = tiny("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(ModelError, match=what):
        add_lora(model, ["model.layers.1.mlp.up_proj", name], rank=2, alpha=2)
    assert not list(lora_layers(model))


def test_twice_is_refused():
    model = tiny("llama")
    add_lora(model, ["model.layers.1.mlp.up_proj"], rank=2, alpha=2)
    with pytest.raises(ModelError, match="already"):
        add_lora(model, ["model.layers.2.mlp.up_proj"], rank=2, alpha=2)
