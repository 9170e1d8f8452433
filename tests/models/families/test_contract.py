"""What every family promises, over tiny builds of its classes. A new family adds its builds to `CASES`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import speech_llm_parts
from torch import nn
from transformers import PreTrainedModel

from shoal.models import families
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.rebuild import check_rebuild
from tiny_models import BUILDERS, tiny

CASES: dict[str, tuple[str, Callable[[], PreTrainedModel]]] = {
    **{name: ("causal_lm", lambda name=name: tiny(name, 6)) for name in BUILDERS},
    **{
        f"speech-{encoder}-{decoder}": (
            "speech_llm",
            lambda encoder=encoder, decoder=decoder: speech_llm_parts.tiny(encoder, decoder)[0],
        )
        for encoder, decoder in (("whisper", "llama"), ("wavlm", "gemma3_text"), ("hubert", "qwen2"))
    },
}


@pytest.fixture(params=CASES)
def case(request):
    family, build = CASES[request.param]
    return family, build()


def test_the_right_family_is_found(case):
    name, model = case
    assert families.find(model).name == name


def test_parts_are_where_it_says(case):
    _, model = case
    family = families.find(model)
    layers = family.layers(model)
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == family.depth(model)
    inside = set(family.decoder(model).modules())
    assert set(layers) <= inside
    assert family.head(model) not in inside
    assert family.head(model).weight.shape[0] == family.text_config(model).vocab_size
    for part in (family.encoder(model), family.projector(model)):
        assert (part is not None) == (family.name != "causal_lm")
        assert part is None or part not in inside


def test_layers_know_their_index(case):
    _, model = case
    family = families.find(model)
    for index, layer in enumerate(family.layers(model)):
        assert {value - index for _, _, value in family.layer_indices(layer)} <= {0, 1}


def test_per_layer_fields_follow_and_the_class_builds_the_same_again(case):
    _, model = case
    family = families.find(model)
    check_rebuild(model, family)
    depth = family.depth(model)
    before = family.per_layer_fields(family.text_config(model))
    prune_in_place(model, [0, 2])
    assert all(family.depth_field(config) for config in family.configs(model))
    assert {getattr(c, family.depth_field(c)) for c in family.configs(model)} == {depth - 2}
    after = family.per_layer_fields(family.text_config(model))
    for name in before.keys() & {"layer_types", "no_rope_layers", "attention_layers"}:
        assert after[name] == [value for layer, value in enumerate(before[name]) if layer not in (0, 2)]
    check_rebuild(model, family)


def test_every_registered_module_holds_a_family():
    assert [family.name for family in families.families()] == list(families.REGISTRY)
