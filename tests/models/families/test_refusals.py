"""Models that cannot be pruned are refused by the name of the field that stands in the way."""

from __future__ import annotations

import pytest
import transformers

from shoal.errors import ModelError
from shoal.models import families
from shoal.models.families import fields
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.rebuild import check_rebuild
from tiny_models import COMMON, tiny

DEPTH = 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scales_by_layer", [1.0] * DEPTH),
        ("attention_plan", ("a",) * DEPTH),
        *((field, 2) for field in sorted(fields.CANNOT_FOLLOW)),
    ],
)
def test_the_field_is_named_and_the_model_left_alone(field, value):
    model = tiny("llama", DEPTH)
    setattr(model.config, field, value)
    with pytest.raises(ModelError, match=field) as caught:
        prune_in_place(model, [1])
    assert "\n" not in str(caught.value)
    assert len(model.model.layers) == DEPTH
    assert model.config.num_hidden_layers == DEPTH


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_kv_shared_layers", 0),
        ("eos_token_id", [1, 2, 3, 4, 5, 6]),
        ("suppress_tokens", [1, 2, 3, 4, 5, 6]),
        ("widths", [1.0] * (DEPTH + 1)),
        ("_private", [1.0] * DEPTH),
    ],
)
def test_what_does_not_follow_the_depth_is_no_reason(field, value):
    model = tiny("llama", DEPTH)
    setattr(model.config, field, value)
    prune_in_place(model, [1])
    assert getattr(model.config, field) == value


def test_a_config_for_single_layers_is_refused():
    model = tiny("llama", DEPTH)
    model.config.per_layer_config = {2: {"intermediate_size": 24}}
    with pytest.raises(ModelError, match="per_layer_config"):
        prune_in_place(model, [1])


def test_gemma_3n_is_refused_for_its_per_layer_inputs():
    config = transformers.Gemma3nTextConfig(num_hidden_layers=4, num_kv_shared_layers=2)
    with pytest.raises(ModelError, match=r"hidden_size_per_layer_input|num_kv_shared_layers"):
        fields.pruned_fields(config, 4, [0, 1, 2])


def test_an_encoder_decoder_is_no_causal_lm():
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2}
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(**size, decoder_attention_heads=2, vocab_size=99, pad_token_id=0)
    )
    family = families.find(model)
    assert family.name == "whisper"
    assert family.layers(model) is model.model.decoder.layers
    assert family.depth(model) == 2


def test_an_encoder_without_a_decoder_is_refused():
    model = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    )
    with pytest.raises(ModelError, match="no family knows"):
        families.find(model)


def test_a_model_without_a_list_of_layers_is_refused():
    model = transformers.BertLMHeadModel(transformers.BertConfig(**COMMON, num_hidden_layers=2, is_decoder=True))
    with pytest.raises(ModelError, match="no list of layers"):
        families.find(model)


def test_a_depth_the_config_does_not_state_is_refused():
    model = tiny("llama", DEPTH)
    model.config.num_hidden_layers = 4
    with pytest.raises(ModelError, match="num_hidden_layers=4 but the decoder has 6"):
        families.find(model)


def config(**values):
    return transformers.PreTrainedConfig(num_hidden_layers=8, **values)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"first_k_dense_replace": 3}, {"first_k_dense_replace": 2}),
        ({"num_dense_layers": 1}, {"num_dense_layers": 1}),
        ({"moe_layers": [1, 3, 5, 7]}, {"moe_layers": [4]}),
        ({"ple_layer_ids": [2, 3, 8]}, {"ple_layer_ids": [2, 5]}),
        ({"moe_topk": list("abcdefgh")}, {"moe_topk": list("acegh")}),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [2, 3]}, {"mlp_only_layers": [1]}),
        (
            {"decoder_sparse_step": 2, "mlp_only_layers": [7]},
            {"decoder_sparse_step": 1, "mlp_only_layers": [0, 1, 2, 3, 4]},
        ),
        (
            {"decoder_sparse_step": 3, "mlp_only_layers": None},
            {"decoder_sparse_step": 1, "mlp_only_layers": [0, 2, 3, 4]},
        ),
    ],
)
def test_each_kind_of_field_follows(before, after):
    """Layers 1, 3 and 5 go."""
    assert fields.pruned_fields(config(**before), 8, [0, 2, 4, 6, 7]) == after


def test_a_depth_that_cannot_be_set_is_refused():
    config = transformers.ProphetNetConfig(
        vocab_size=99,
        hidden_size=16,
        num_encoder_layers=3,
        num_decoder_layers=3,
        num_decoder_attention_heads=2,
        decoder_ffn_dim=16,
    )
    with pytest.raises(ModelError, match="num_hidden_layers cannot be set"):
        prune_in_place(transformers.ProphetNetForCausalLM(config), [1])


def test_a_class_that_counts_its_layers_elsewhere_is_refused():
    config = transformers.LlamaConfig(**COMMON, num_hidden_layers=4)

    class Fixed(transformers.LlamaForCausalLM):
        def __init__(self, config):
            config.num_hidden_layers = 4
            super().__init__(config)

    model = prune_in_place(Fixed(config), [1])
    with pytest.raises(ModelError, match="4 layers would be rebuilt, not 3"):
        check_rebuild(model, families.find(model))
