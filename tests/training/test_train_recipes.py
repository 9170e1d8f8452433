"""A recipe in Python, on tiny base models: the same weights every time, and what it must not say."""

from __future__ import annotations

import pytest
import torch
from speech_llm_parts import tiny
from transformers import WhisperConfig, WhisperModel

import shoal
from shoal.errors import InputError, ModelError
from shoal.training.recipe import Recipe
from tiny_speech import write_clips


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of a tiny Whisper and a tiny Llama, and two sets of clips."""
    folder = tmp_path_factory.mktemp("recipe")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 50}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(**sizes, **tokens, num_mel_bins=80, max_source_positions=50)
    WhisperModel(config).save_pretrained(folder / "encoder")
    model, processor = tiny()
    processor.feature_extractor.save_pretrained(folder / "encoder")
    model.decoder.save_pretrained(folder / "decoder")
    processor.tokenizer.save_pretrained(folder / "decoder")
    write_clips(folder / "clips", 8)
    write_clips(folder / "more")
    return folder


def recipe(place, **changes):
    values = {
        "encoder": str(place / "encoder"),
        "decoder": str(place / "decoder"),
        "projector": {"type": "mlp", "hidden_size": 24},
        "lora": {"rank": 4},
        "train": [{"data": "clips/manifest.jsonl", "weight": 2.0}, {"data": "more/manifest.jsonl"}],
        "validation": [{"data": "more/manifest.jsonl", "limit": 4}],
        "augment": {"speeds": [1.0, 0.9], "masks": 1},
        "ctc": {"steps": 2, "clips": 4},
        "lm": {"steps": 4, "clips": 4, "lora_lr": 1e-2, "ctc_weight": 0.3, "ctc_every": 2},
    }
    return Recipe(**(values | changes))


def train(place, out, **changes):
    return shoal.train(recipe(place, **changes), out, data_root=place, how={"features": place / "states"})


def test_the_same_recipe_gives_the_same_weights(place, tmp_path):
    for name in "ab":
        train(place, tmp_path / name, validation=[])
    first, second = ((tmp_path / name / "adapters.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_a_projector_setting_that_there_is_not_is_one_line(place, tmp_path):
    with pytest.raises(ModelError, match="a projector has no setting 'width'"):
        train(place, tmp_path / "out", projector={"width": 3})
    assert not list(tmp_path.iterdir())


def test_a_layer_to_adapt_that_there_is_not_is_one_line(place, tmp_path):
    with pytest.raises(InputError, match="no linear layer is called 'heart'"):
        train(place, tmp_path / "out", ctc=None, lm={"steps": 1, "clips": 2}, lora={"modules": ["heart"]})
