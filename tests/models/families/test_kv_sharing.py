"""Which layers of a decoder with shared keys and values may go."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shoal.errors import ModelError
from shoal.models import families
from shoal.pruning.from_folder import prune_folder
from shoal.pruning.in_memory import prune_in_place, pruned
from shoal.pruning.rebuild import check_rebuild
from shoal.selection import manual
from tiny_audio import gemma4, gemma4_unified

BUILDS = (gemma4.build, gemma4_unified.build)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("layers", [[0], [1, 3], [5, 7], [0, 1, 3, 5, 6, 7]])
def test_layers_that_stay_read_the_same_source(build, layers):
    model = build(gemma4.DEPTH)
    family = families.find(model)
    stored = [layer for layer in family.layers(model) if layer.self_attn.store_full_length_kv]
    prune_in_place(model, layers)
    check_rebuild(model, family)
    again = [layer for layer in family.layers(model) if layer.self_attn.store_full_length_kv]
    assert all(a is b for a, b in zip(stored, again, strict=True))
    assert family.text_config(model).num_kv_shared_layers == 4 - sum(layer >= 5 for layer in layers)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([2], "num_kv_shared_layers"),
        ([3, 4], "num_kv_shared_layers"),
        ([5, 6, 7, 8], "layer_types"),
        ([8, 7], "layer_types"),
    ],
)
def test_what_cannot_follow_is_refused_by_its_name(build, layers, field):
    model = build(gemma4.DEPTH)
    with pytest.raises(ModelError, match=field):
        prune_in_place(model, sorted(layers))
    assert len(families.find(model).layers(model)) == gemma4.DEPTH


def test_all_layers_that_share_cannot_go_together():
    model = gemma4.build(gemma4.DEPTH)
    config = model.config.text_config
    config.layer_types = ["full_attention"] * gemma4.DEPTH
    with pytest.raises(ModelError, match="num_kv_shared_layers would be 0"):
        families.find(model).pruned_fields(config, range(5))


def test_weights_that_layers_have_on_disk_and_do_not_use_are_no_obstacle(tmp_path):
    """As in checkpoints on the hub: layers that read others' keys have unused projections for their own."""
    folder = tmp_path / "model"
    gemma4.build(gemma4.DEPTH).save_pretrained(folder)
    gemma4.processor().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    unused = {
        f"model.language_model.layers.{layer}.self_attn.{name}.weight": torch.randn(16, 32)
        for layer in range(5, gemma4.DEPTH)
        for name in ("k_proj", "v_proj")
    }
    save_file(tensors | unused, folder / "model.safetensors", metadata={"format": "pt"})
    out = prune_folder(str(folder), manual(str(folder), gemma4.DEPTH, [1, 3, 6]), tmp_path / "out")
    left = load_file(out / "model.safetensors")
    assert sum("language_model" in name and "k_proj" in name for name in left) == 6


def test_what_modules_remember_of_the_layers_follows_and_comes_back():
    model = gemma4.build(gemma4.DEPTH)
    decoder = model.model.language_model
    with pruned(model, [1, 3, 6]):
        assert decoder.first_kv_shared_layer_idx == 3
        assert decoder._keys_to_ignore_on_load_unexpected == again(model)._keys_to_ignore_on_load_unexpected
    assert decoder.first_kv_shared_layer_idx == 5
    assert decoder._keys_to_ignore_on_load_unexpected == again(model)._keys_to_ignore_on_load_unexpected


def again(model):
    """The decoder that the class makes of the model's config."""
    return type(model)(model.config).model.language_model


def test_global_layers_keep_their_own_settings_and_all_is_undone():
    model = gemma4.build(gemma4.DEPTH)
    config = model.config.text_config
    before = config.to_dict()
    table = model.model.language_model.embed_tokens_per_layer
    assert isinstance(table, nn.Embedding)
    with pruned(model, [1, 6]):
        assert {int(layer) for layer in config.to_dict()["per_layer_config"]} == {1, 5, 6}
        assert table.weight.shape[1] == table.embedding_dim == 4 * 7
    assert config.to_dict() == before
    assert table.weight.shape[1] == table.embedding_dim == 4 * 9
