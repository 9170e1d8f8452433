"""Attention and MLP are found in every architecture that has them, and what is not their sum is refused."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

from shoal.decoder.sublayers import ModuleOutput, find_sublayers, prove, sublayers_of
from shoal.errors import ModelError
from shoal.models import families
from tiny_audio import BUILDS
from tiny_models import BUILDERS, prompts, tiny

OTHERWISE = {
    "Nemotron3_5TranscribeForConditionalGeneration": "attention + MLP",
    "NemotronH_Omni_Reasoning_V3": "attention + MLP",
    "HiggsAudioV2ForConditionalGeneration": "over all positions",
    "Gemma3nForConditionalGeneration": "over all positions",
}
"""Classes whose layers are something else: one mixer, two MLPs for two kinds of tokens, four states side by side."""


def prove_text(model: nn.Module) -> list:
    return prove(families.find(model).layers(model), lambda: model(**prompts(), use_cache=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_text_architecture_is_proved(name: str, dtype: torch.dtype) -> None:
    model = tiny(name).to(dtype)
    found = prove_text(model)
    assert len(found) == 6
    for parts in found:
        assert parts.outputs[parts.mlp] == ModuleOutput(32)
        assert set(parts.outputs) == {*parts.work["attention"], *parts.work["mlp"]}


@pytest.mark.parametrize("name", BUILDS)
def test_every_audio_llm_is_proved_or_refused(name: str) -> None:
    model = BUILDS[name].build(BUILDS[name].depth)
    family = families.find(model)
    if name in OTHERWISE:
        with pytest.raises(ModelError, match=OTHERWISE[name].replace("+", r"\+")) as caught:
            sublayers_of(model, family)
        assert "\n" not in str(caught.value)
    else:
        assert len(sublayers_of(model, family)) == BUILDS[name].depth


def test_the_post_norms_of_gemma_and_the_norms_of_llama_are_told_apart() -> None:
    gemma, llama = (tiny(name).model.layers[0] for name in ("gemma3", "llama"))
    assert find_sublayers(gemma).attention is gemma.post_attention_layernorm
    assert find_sublayers(llama).attention is llama.self_attn


def test_cross_attention_belongs_to_neither() -> None:
    model = BUILDS["WhisperForConditionalGeneration"].build(4)
    layer = families.find(model).layers(model)[0]
    found = find_sublayers(layer)
    assert (found.attention, found.mlp, found.others) == (layer.self_attn, layer.fc2, (layer.encoder_attn,))


def test_a_layer_that_adds_nothing_is_proved() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    assert len(prove_text(model)) == 6


def test_norms_over_the_sum_are_refused() -> None:
    config = transformers.OPTConfig(
        vocab_size=99,
        hidden_size=32,
        ffn_dim=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        word_embed_proj_dim=32,
        do_layer_norm_before=False,
    )
    with pytest.raises(ModelError, match="what leaves one is not what entered it plus"):
        prove_text(transformers.OPTForCausalLM(config).eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", ["gate", "branch"])
def test_what_the_names_do_not_tell_is_refused(change: str, dtype: torch.dtype) -> None:
    model = tiny("llama").to(dtype)
    layer = model.model.layers[3]
    plain = layer.mlp.forward

    def changed(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        gate = output.new_tensor(range(output.shape[-1])) / output.shape[-1]
        return args[0] + (output - args[0]) * gate if change == "gate" else output + plain(args[0])

    layer.register_forward_hook(changed)
    with pytest.raises(ModelError, match="what leaves one is not"):
        prove_text(model)
    assert not layer._forward_pre_hooks
