"""Qwen's Omni models: what in them names a layer of the thinker."""

from __future__ import annotations

import pytest

from shoal.errors import ModelError
from shoal.models import families
from shoal.pruning.in_memory import prune_in_place, pruned
from tiny_audio import qwen2_5_omni, qwen3_omni_moe

READ = 4
"""The state that the tiny talker reads."""


@pytest.mark.parametrize("build", [qwen3_omni_moe.build, qwen3_omni_moe.build_thinker])
def test_the_layers_to_whose_states_images_are_added_stay(build):
    with pytest.raises(ModelError, match="deepstack_visual_indexes"):
        prune_in_place(build(6), [0])


@pytest.mark.parametrize(("layers", "read"), [([1], 3), ([1, 3], 2), ([4], 4), ([5], 4), ([3, 4], 3)])
def test_the_talker_reads_the_state_before_the_same_layer(layers, read):
    model = qwen3_omni_moe.build(6)
    talker = model.config.talker_config
    with pruned(model, layers):
        assert talker.accept_hidden_layer == read
    assert talker.accept_hidden_layer == READ


def test_the_talkers_state_cannot_become_the_normed_one():
    with pytest.raises(ModelError, match="accept_hidden_layer"):
        prune_in_place(qwen3_omni_moe.build(6), [4, 5])


def test_without_a_talker_nothing_reads_inner_states():
    model = qwen3_omni_moe.build(6)
    model.config.enable_audio_output = False
    prune_in_place(model, [4, 5])
    assert len(model.thinker.model.language_model.layers) == READ


@pytest.mark.parametrize("file", [qwen2_5_omni, qwen3_omni_moe])
def test_only_the_whole_model_speaks(file):
    thinker, whole = file.BUILDS
    family = families.find(file.build(6))
    assert family is families.find(file.build_thinker(6))
    assert not family.speaks(thinker)
    assert family.speaks(whole)
    assert "talker" in family.limits_of(whole)
    assert "talker" not in family.limits_of(thinker)
