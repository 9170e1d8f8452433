"""Weights that the stock class does not load: kept, or left out and said so, the same in memory and on disk."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from shoal.cards.facts import Folder
from shoal.cards.writing import first_card
from shoal.errors import ModelError
from shoal.models.families import find
from shoal.models.info import model_info
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import write_checkpoint
from shoal.pruning.probe import token_batch
from shoal.pruning.sharded import write_sharded
from shoal.pruning.verify import checked, expectation, verify_checkpoint
from shoal.schema import Plan, Provenance
from shoal.schema.verification import REPORT_FILE, VerificationReport

HEAD = {"mtp.fc.weight": (4, 8), "mtp.layers.0.input_layernorm.weight": (4,), "mtp.norm.weight": (4,)}


@pytest.fixture(scope="module")
def model() -> Qwen3_5ForCausalLM:
    torch.manual_seed(0)
    return Qwen3_5ForCausalLM(
        Qwen3_5TextConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=2,
            linear_key_head_dim=8, linear_value_head_dim=8, full_attention_interval=2, mtp_num_hidden_layers=1,
            pad_token_id=0, eos_token_id=1, bos_token_id=2,
        )
    ).eval()  # fmt: skip


def plan(layers: list[int]) -> Plan:
    return Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=4, layers=layers)


def with_tensors(model, folder: Path, tensors: dict[str, tuple[int, ...]]) -> Path:
    model.save_pretrained(folder)
    more = {name: torch.randn(shape) for name, shape in tensors.items()}
    save_file(load_file(folder / "model.safetensors") | more, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapt(model, folder: Path, *, layers: list[int]) -> None:
    """A PEFT adapter of some layers."""
    config = LoraConfig(r=2, target_modules=["down_proj"], layers_to_transform=layers)
    get_peft_model(copy.deepcopy(model), config).save_pretrained(folder)


def both_ways(model, source: Path, layers: list[int], tmp_path: Path, *, verified: bool = True) -> list[Path]:
    """Pruned in memory and on disk."""
    removed, cases = plan(layers), {"text": token_batch(64)} if verified else {}

    def verify(draft: Path) -> VerificationReport:
        with pruned(model, removed) as smaller:
            return checked(verify_checkpoint(draft, expectation(smaller, cases)), draft, draft)

    memory = write_checkpoint(model, removed, tmp_path / "memory", cases=cases, source=source)
    return [memory, write_sharded(source, removed, tmp_path / "disk", ref="tiny", verify=verify if verified else None)]


def card(model, folder: Path) -> str:
    described = model_info(model, find(model), folder.parent, ref="tiny", licence=None)
    return first_card(Folder(folder), described, VerificationReport.load(folder / REPORT_FILE))


def accounts(folder: Path) -> str:
    return VerificationReport.load(folder / REPORT_FILE).source_tensors


def test_a_head_that_the_class_ignores_is_kept_both_ways(tmp_path, model):
    source = with_tensors(model, tmp_path / "source", HEAD)
    before = load_file(source / "model.safetensors")
    folders = both_ways(model, source, [1, 2], tmp_path)
    memory, disk = (load_file(folder / "model.safetensors") for folder in folders)
    assert memory.keys() == disk.keys() >= HEAD.keys()
    assert all(torch.equal(memory[name], disk[name]) for name in memory)
    assert all(torch.equal(memory[name], before[name]) for name in HEAD)
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert [config["mtp_num_hidden_layers"] for config in configs] == [1, 1]
    assert accounts(folders[0]) == accounts(folders[1])
    assert f" of {len(before)} kept, " in accounts(memory_folder := folders[0])
    assert "3 kept that the class does not load, such as mtp.fc.weight" in accounts(memory_folder)


def test_a_head_that_follows_the_last_layer_by_number_is_left_out_and_no_longer_promised(tmp_path, model, monkeypatch):
    for owner in (type(model), model):
        monkeypatch.setattr(owner, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.4.*"])
    source = with_tensors(model, tmp_path / "source", {"model.layers.4.eh_proj.weight": (4, 8)})
    folders = both_ways(model, source, [1, 2], tmp_path)
    for folder in folders:
        assert "model.layers.4.eh_proj.weight" not in load_file(folder / "model.safetensors")
        assert json.loads((folder / "config.json").read_text())["mtp_num_hidden_layers"] == 0
        assert "none for multi-token prediction, which the config promises no longer" in accounts(folder)
        assert accounts(folder) in card(model, folder)
        assert "1 left out that follow the last layer, such as model.layers.4.eh_proj.weight" in accounts(folder)
    assert accounts(folders[0]) == accounts(folders[1])


def test_a_promise_without_tensors_is_taken_back(tmp_path, model):
    source = with_tensors(model, tmp_path / "source", {})
    for folder in both_ways(model, source, [1, 2], tmp_path, verified=False):
        assert json.loads((folder / "config.json").read_text())["mtp_num_hidden_layers"] == 0


def test_tensors_of_another_model_are_refused_both_ways(tmp_path, model):
    source = with_tensors(model, tmp_path / "source", {"adapter.weight": (4, 4)})
    with pytest.raises(ModelError, match=r"1 of its tensors are not of its model, such as adapter\.weight"):
        write_checkpoint(model, plan([1]), tmp_path / "memory", cases={}, source=source)
    with pytest.raises(ModelError, match=r"1 of its tensors are not of its model, such as adapter\.weight"):
        write_sharded(source, plan([1]), tmp_path / "disk", ref="tiny")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_folders_inside_go_with_the_model_both_ways(tmp_path, model):
    source = with_tensors(model, tmp_path / "source", {})
    (source / "vocoder").mkdir()
    (source / "vocoder" / "config.json").write_text('{"architectures": ["Vocoder"]}')
    save_file({"weight": torch.ones(3)}, source / "vocoder" / "model.safetensors")
    adapt(model, source / "lora", layers=[0, 1, 3])
    memory, disk = both_ways(model, source, [1, 2], tmp_path, verified=False)
    for path in (Path("vocoder", "config.json"), Path("vocoder", "model.safetensors")):
        assert (memory / path).read_bytes() == (disk / path).read_bytes() == (source / path).read_bytes()
    for path in (Path("lora", "adapter_config.json"), Path("lora", "adapter_model.safetensors")):
        assert (memory / path).read_bytes() == (disk / path).read_bytes()
    assert json.loads((memory / "lora" / "adapter_config.json").read_text())["layers_to_transform"] == [0, 1]
