"""The card says how to load a checkpoint, and the base model that it names is never a folder of this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard

import shoal
from card_documents import data, loaded_as_the_card_says, plan, provenance
from shoal.cards.facts import published
from shoal.healing.checkpoints import write_adapters, write_merged
from shoal.models.lora import add_lora
from shoal.schema import HealRecord
from tiny_models import tiny
from tiny_speech import saved


def base_model(folder):
    return ModelCard((folder / "README.md").read_text()).data.base_model


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A model of the Hub, pruned into a folder of this machine."""
    folder = tmp_path_factory.mktemp("models")
    tiny("llama", 6).save_pretrained(folder / "whole")
    loaded = replace(shoal.load(str(folder / "whole")), ref="org/model", _info=None)
    return shoal.prune(loaded, plan([1]), folder / "pruned", verify=False)


def test_the_base_of_a_healed_model_is_the_original_and_no_folder(pruned, tmp_path):
    loaded = shoal.load(str(pruned))
    names = [name for name, _ in loaded.model.named_modules() if name.endswith("1.mlp.down_proj")]
    add_lora(loaded.model, names, rank=2, alpha=4, dropout=0.0)
    record = HealRecord(
        provenance=provenance(),
        model=loaded.info(),
        teacher=str(pruned.parent / "whole"),
        target="decoder",
        task="asr",
        data=data(),
        trained_parameters=9,
    )
    assert record.model.ref == str(pruned)
    whole = write_merged(loaded, tmp_path / "merged", record=record, verify=False)
    adapter = write_adapters(loaded, tmp_path / "adapter", base=str(pruned), record=record, verify=False)
    for folder in (pruned, whole, adapter):
        assert base_model(folder) == "org/model"
        shoal.card(folder)
        assert base_model(folder) == "org/model"
    assert "Teacher: `whole`" in (whole / "README.md").read_text()
    assert str(pruned.parent) not in (whole / "README.md").read_text()
    modes = {path.stat().st_mode for folder in (whole, adapter) for path in folder.iterdir() if path.is_file()}
    assert len(modes) == 1


@pytest.mark.parametrize("ref", ["org/model", "gpt2", "pkg:reference"])
def test_names_that_mean_something_elsewhere(ref):
    assert published(ref)


@pytest.mark.parametrize("ref", ["", "/models/whole", "./whole", "runs/one/healed", "~/whole", "out"])
def test_folders_mean_nothing_elsewhere(ref, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not published(ref)


def test_the_card_loads_a_pruned_speech_llm_with_its_processor(tmp_path, monkeypatch):
    saved(tmp_path / "whole")
    loaded = shoal.load(str(tmp_path / "whole"))
    folder = shoal.prune(loaded, plan([1], 4), tmp_path / "pruned", verify=False)
    names = loaded_as_the_card_says(folder, monkeypatch)
    assert names["model"].decoder.config.num_hidden_layers == 3
    assert "processor" in names
    again = shoal.load(str(folder)).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in names["model"].state_dict().items())
