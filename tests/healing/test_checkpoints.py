"""Healed models: what is written, merged or as adapters, is what was in memory; nothing less is left behind."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file, save_file
from speech_llm_parts import tiny as tiny_speech_llm
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

import tiny_models
from card_documents import loaded_as_the_card_says
from shoal.errors import InputError, ModelError, UsageError, VerificationError
from shoal.healing import checkpoints
from shoal.healing.checkpoints import write_adapters, write_merged
from shoal.models.loading import load
from shoal.models.lora import add_lora, lora_layers, merged
from shoal.models.stock import stock_class
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.on_disk import prune
from shoal.pruning.probe import DECODING, probe
from shoal.pruning.verify_child import checkpoint_checks
from shoal.schema import DataInfo, HealRecord, Plan, Provenance
from shoal.schema.verification import Check, VerificationReport
from tiny_audio import BUILDS

AUDIO = ("Qwen2AudioForConditionalGeneration", "VoxtralForConditionalGeneration")
TEXT = ("llama", "qwen2", "gpt2")
PROJECTORS = {"Qwen2AudioForConditionalGeneration": "model.multi_modal_projector", "speech_llm": "projector"}


def plan(layers: list[int], depth: int) -> Plan:
    return Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=depth, layers=layers)


def record(loaded, target: str = "joint") -> HealRecord:
    return HealRecord(
        provenance=Provenance(shoal="0"),
        model=loaded.info(),
        target=target,
        task="asr",
        data=DataInfo(manifests=["m.jsonl"], clips=12, seconds=36.0, languages=["hi"]),
        trained_parameters=1234,
        steps=56,
        clips=78,
        loss_before=3.25,
        loss_after=1.5,
    )


def write_unpruned(name, folder):
    if name in BUILDS:
        BUILDS[name].write(folder)
    elif name == "speech_llm":
        model, processor = tiny_speech_llm("whisper", "llama")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    else:
        tiny_models.tiny(name).save_pretrained(folder)
        words = {f"w{index}": index for index in range(tiny_models.VOCABULARY)}
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))).save_pretrained(
            folder
        )
        (folder / "LICENSE").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def pruned_folder(tmp_path_factory):
    """Name → the folder of a tiny model without its layer 1."""
    made = {}

    def folder(name):
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            whole = load(str(write_unpruned(name, place / "whole")))
            made[name] = prune(whole, plan([1], whole.info().depth), place / "pruned", verify=False)
        return made[name]

    return folder


@pytest.fixture
def here(monkeypatch):
    """The checks of the fresh process, in this one."""

    def verify(folder, expected):
        checks = checkpoint_checks(folder, expected.facts, expected.tensors)
        return VerificationReport(provenance=Provenance(shoal="0"), checks=[Check(**check) for check in checks])

    monkeypatch.setattr(checkpoints, "verify_checkpoint", verify)


def healed(loaded, *, projector: str | None = None):
    """Low-rank layers in two decoder layers, and the projector, as after training."""
    path = loaded.family.layers_path(loaded.model)
    wanted = ("q_proj", "down_proj", "c_attn", "mlp.c_proj")
    linear = [
        name
        for name, module in loaded.model.named_modules()
        if name.startswith((f"{path}.1.", f"{path}.2.")) and name.endswith(wanted)
    ]
    assert all(type(loaded.model.get_submodule(name)).__name__ in ("Linear", "Conv1D") for name in linear)
    add_lora(loaded.model, linear, rank=2, alpha=4, dropout=0.5)
    generator = torch.Generator().manual_seed(0)
    changed = [layer.lora_B["default"].weight for _, layer in lora_layers(loaded.model)]
    if projector is not None:
        changed += list(loaded.model.get_submodule(projector).requires_grad_(True).parameters())
    with torch.no_grad():
        for weight in changed:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return loaded


def logits(loaded, model=None):
    """On all inputs that a checkpoint is verified with; `model` instead of the loaded one."""
    model = loaded.model if model is None else model
    found = []
    with torch.no_grad():
        for name, inputs in probe(loaded).items():
            if name != DECODING:
                found.append(model(**inputs, use_cache=False).logits.float()[inputs["attention_mask"].bool()])
    return torch.cat(found)


def stock(folder, loaded, **options):
    own = loaded.kind == "speech_llm"
    wanted = AutoModelForCausalLM if own else stock_class(loaded.model.config, "tiny")
    return wanted.from_pretrained(folder, trust_remote_code=own, **options).eval()


def close(here, there):
    torch.testing.assert_close(here, there, rtol=0, atol=1e-4)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*TEXT, *AUDIO])
def test_merged_is_what_was_in_memory(name, pruned_folder, tmp_path, monkeypatch, here):
    loaded = load(str(pruned_folder(name)))
    before = logits(loaded)
    expected = logits(healed(loaded, projector=PROJECTORS.get(name)))
    assert not torch.allclose(before, expected, atol=1e-2)
    loaded.model.train()
    out = write_merged(loaded, tmp_path / "out", record=record(loaded))
    assert loaded.model.training
    loaded.model.eval()
    assert torch.equal(logits(loaded), expected)
    assert list(lora_layers(loaded.model))
    again = load(str(out))
    close(logits(again), expected)
    close(logits(again, stock(out, loaded, dtype=torch.float32)), expected)
    assert again.info().removed_layers == [1]
    assert names(out) >= {"shoal-plan.json", "shoal-heal.json", "shoal-verification.json", "README.md"}
    assert HealRecord.load(out / "shoal-heal.json").steps == 56
    assert names(tmp_path) == {"out"}
    if name in TEXT:
        assert (out / "LICENSE").read_text() == "mine"
    names_in_card = loaded_as_the_card_says(out, monkeypatch)
    close(logits(again, names_in_card["model"].eval()), expected)
    card = (out / "README.md").read_text()
    assert ModelCard(card).data.base_model is None  # the original is a folder of this machine
    for text in ("unpruned model of 6: 1", "joint (1,234 parameters)", "56; ", "3.25 before, 1.5 after"):
        assert text in card
    for text in (
        "12 (0.01 h, hi); 78 seen",
        "without 1 decoder layer, healed",
        "Anything but asr",
        "speaker group",
    ):
        assert text in card


@pytest.mark.parametrize("name", [*TEXT, *AUDIO])
def test_adapters_make_of_the_base_what_was_in_memory(name, pruned_folder, tmp_path, here, monkeypatch):
    folder, projector = pruned_folder(name), PROJECTORS.get(name)
    loaded = load(str(folder))
    expected = logits(healed(loaded, projector=projector))
    saved = [projector] if projector else []
    out = write_adapters(loaded, tmp_path / "out", base=str(folder), record=record(loaded), modules_to_save=saved)
    report = VerificationReport.load(out / "shoal-verification.json")
    assert {"tensors", "adapter", "logits", "cache"} <= {check.name for check in report.checks}
    again = load(str(out))
    close(logits(again), expected)
    assert not any("lora" in key or "modules_to_save" in key for key in again.model.state_dict())
    base = stock(folder, loaded, dtype=torch.float32)
    close(logits(again, PeftModel.from_pretrained(base, out)), expected)
    info = again.info()
    assert (info.ref, info.removed_layers, info.depth) == (str(out), [1], 5)
    assert again.processor is None or type(again.processor) is type(loaded.processor)
    tensors = load_file(out / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(list(lora_layers(loaded.model))) + (2 if projector else 0)
    assert all(key.startswith("base_model.model.") for key in tensors)
    card = (out / "README.md").read_text()
    head = ModelCard(card).data
    assert (head.library_name, head.base_model) == ("peft", None)
    close(logits(again, loaded_as_the_card_says(out, monkeypatch)["model"].eval()), expected)
    assert "unpruned model of 6: 1" in card
    assert torch.equal(logits(loaded), expected)


def test_a_speech_llm_goes_both_ways_in_a_fresh_process(pruned_folder, tmp_path):
    folder = pruned_folder("speech_llm")
    loaded = load(str(folder))
    expected = logits(healed(loaded, projector="projector"))
    adapter = write_adapters(
        loaded, tmp_path / "adapter", base=str(folder), record=record(loaded), modules_to_save=["projector"]
    )
    whole = write_merged(loaded, tmp_path / "merged", record=record(loaded), dtype=torch.bfloat16)
    for out in (adapter, whole):
        assert VerificationReport.load(out / "shoal-verification.json").complete
    again = load(str(adapter))
    close(logits(again), expected)
    assert again.processor is not None
    assert again.model.config.lora_merged
    close(logits(loaded, PeftModel.from_pretrained(stock(folder, loaded), adapter)), expected)
    # The written dtype: what was in memory, rounded once.
    assert torch.equal(logits(loaded), expected)
    assert loaded.model.dtype == loaded.model.config.dtype == torch.float32
    assert {tensor.dtype for tensor in load_file(whole / "model.safetensors").values()} == {torch.bfloat16}
    half = load(str(whole), dtype="stored")
    assert half.dtype == torch.bfloat16
    with merged(loaded.model):
        here, there = half.model.state_dict(), loaded.model.state_dict()
        assert all(torch.equal(here[key], there[key].to(here[key].dtype)) for key in here.keys() | there.keys())


def test_what_a_class_keeps_in_float32_stays_so(pruned_folder, tmp_path, here):
    loaded = healed(load(str(pruned_folder("VoxtralForConditionalGeneration"))))
    out = write_merged(loaded, tmp_path / "out", record=record(loaded), dtype=torch.bfloat16)
    dtypes = {key: tensor.dtype for key, tensor in load_file(out / "model.safetensors").items()}
    kept = {key for key, dtype in dtypes.items() if dtype == torch.float32}
    assert kept
    assert all("embed_positions" in key for key in kept)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    for dtype in ("stored", "float32"):
        half = load(str(out), dtype=dtype)
        assert half.dtype == (torch.bfloat16 if dtype == "stored" else torch.float32)
        write_adapters(healed(half), tmp_path / dtype, base=str(out), record=record(half))


def test_two_rounds_leave_every_plan_and_every_healing(pruned_folder, tmp_path, here):
    """Prune, heal, prune in memory and heal at once, heal as adapters, prune, heal."""
    first = load(str(pruned_folder("llama")))
    out = write_merged(healed(first), tmp_path / "1", record=record(first, "one"), verify=False)
    second = load(str(out))
    cut, told = plan([0, 2], 5), record(second, "two")
    prune_in_place(second.model, cut)
    out = write_merged(healed(second), tmp_path / "2", record=told, plan=cut)
    assert load(str(out)).info().removed_layers == [0, 1, 3]
    third = load(str(out))
    adapter = write_adapters(healed(third), tmp_path / "3", base="../2", record=record(third, "three"))
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "../2"
    assert "Healed before: two on asr" in (adapter / "README.md").read_text()
    fourth = load(str(adapter))
    pruned = prune(fourth, plan([1], 3), tmp_path / "4", verify=False)
    assert "shoal-heal.json" not in names(pruned)
    last = load(str(pruned))
    out = write_merged(last, tmp_path / "5", record=record(last, "four"))
    assert load(str(out)).info().removed_layers == [0, 1, 3, 4]
    plans = [Plan.load(out / name).layers for name in ("shoal-plan-1.json", "shoal-plan-2.json", "shoal-plan.json")]
    assert plans == [[1], [0, 2], [1]]
    healings = ["shoal-heal-1.json", "shoal-heal-2.json", "shoal-heal-3.json", "shoal-heal.json"]
    assert [HealRecord.load(out / name).target for name in healings] == ["one", "two", "three", "four"]
    card = (out / "README.md").read_text()
    assert "unpruned model of 6: 0, 1, 3, 4" in card
    assert "Healed before: two on asr" in card
    with pytest.raises(UsageError, match="own folder"):
        write_merged(fourth, adapter, record=record(fourth), force=True)


@pytest.mark.parametrize("way", ["merged", "adapters"])
def test_a_damaged_checkpoint_leaves_nothing(way, pruned_folder, tmp_path, here, monkeypatch):
    folder = pruned_folder("llama")
    loaded = healed(load(str(folder)))
    verify = checkpoints.verify_checkpoint
    file = {"merged": "model.safetensors", "adapters": "adapter_model.safetensors"}[way]

    def damaged(checked, expected):
        path = next(tmp_path.glob(f".out.*/{file}"))
        tensors = load_file(path)
        tensors[min(key for key in tensors if "layers.1.mlp" in key)][0, 0] += 1
        save_file(tensors, path, metadata={"format": "pt"})
        return verify(checked, expected)

    monkeypatch.setattr(checkpoints, "verify_checkpoint", damaged)
    write, rest = (write_merged, {}) if way == "merged" else (write_adapters, {"base": str(folder)})
    with pytest.raises(VerificationError, match="not the model that was healed"):
        write(loaded, tmp_path / "out", record=record(loaded), **rest)
    assert names(tmp_path) == set()
    assert list(lora_layers(loaded.model))


def test_a_taken_folder_is_kept_unless_forced(pruned_folder, tmp_path):
    folder = pruned_folder("llama")
    loaded = healed(load(str(folder)))
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for write in (write_merged, lambda *args, **rest: write_adapters(*args, base=str(folder), **rest)):
        with pytest.raises(UsageError, match="not empty"):
            write(loaded, out, record=record(loaded), verify=False)
        assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="own folder"):
        write_merged(loaded, folder, record=record(loaded), force=True)
    write_merged(loaded, out, record=record(loaded), verify=False, force=True)
    assert "mine.txt" not in names(out)
    assert names(tmp_path) == {"out"}


def test_adapters_hold_nothing_else_that_was_trained(pruned_folder, tmp_path, here):
    folder = pruned_folder("llama")

    def write(loaded, **rest):
        with pytest.raises(ModelError, match="write it merged") as caught:
            write_adapters(loaded, tmp_path / "out", base=str(folder), record=record(loaded), **rest)
        assert names(tmp_path) == set()
        return str(caught.value)

    seen = healed(load(str(folder)))
    seen.model.model.layers[3].mlp.up_proj.weight.requires_grad_(True)
    assert "model.layers.3.mlp.up_proj.weight" in write(seen)
    unseen = healed(load(str(folder)))
    unseen.model.model.layers[3].mlp.up_proj.weight.data.add_(1e-3)
    assert "model.layers.3.mlp.up_proj.weight" in write(unseen)
    assert "trained whole" in write(healed(load(str(folder))), modules_to_save=["model.layers.1.mlp"])
    doubtful = healed(load(str(folder)))
    doubtful.model.add_module("other_lm_head", nn.Linear(2, 2))
    assert "PEFT would take other_lm_head" in write(doubtful, modules_to_save=["lm_head"])
    assert "nothing in it" in write(load(str(folder)))


def test_adapters_of_another_model_are_refused(pruned_folder, tmp_path):
    """By its depth, and by its weights; in another dtype they are its adapters still."""
    folder = pruned_folder("llama")
    loaded = healed(load(str(folder)))
    adapter = write_adapters(loaded, tmp_path / "adapter", base=str(folder), record=record(loaded), verify=False)
    assert load(str(adapter), dtype="bfloat16").dtype == torch.bfloat16
    other = prune(load(str(folder.parent / "whole")), plan([2], 6), tmp_path / "other", verify=False)
    config = json.loads((adapter / "adapter_config.json").read_text())
    for base, difference in (
        (folder.parent / "whole", rf"has 6 layers, and the model that was healed \({folder}\) had 5"),
        (other, rf"has other weights than the model that was healed \({folder}\)"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
        for dtype in ("auto", "bfloat16"):
            with pytest.raises(ModelError, match=f"for another model: its base {base} {difference}; set base_model"):
                load(str(adapter), dtype=dtype)


def test_a_projector_alone_is_an_adapter(pruned_folder, tmp_path, here):
    name = "Qwen2AudioForConditionalGeneration"
    folder = pruned_folder(name)
    loaded = load(str(folder))
    projector = loaded.model.get_submodule(PROJECTORS[name])
    nn.init.normal_(projector.linear.weight.data, std=0.3)
    expected = logits(loaded)
    out = write_adapters(
        loaded, tmp_path / "out", base=str(folder), record=record(loaded), modules_to_save=[PROJECTORS[name]]
    )
    close(logits(load(str(out))), expected)


def test_adapters_that_cannot_be_loaded_are_one_line(pruned_folder, tmp_path):
    folder = pruned_folder("llama")
    loaded = healed(load(str(folder)))
    good = write_adapters(loaded, tmp_path / "good", base=str(folder), record=record(loaded), verify=False)
    config = json.loads((good / "adapter_config.json").read_text())
    tensors = load_file(good / "adapter_model.safetensors")
    half = dict(list(tensors.items())[1:])
    wide = {key: torch.cat([tensor, tensor], -1) if "lora_A" in key else tensor for key, tensor in tensors.items()}
    cases = [
        ({"base_model_name_or_path": None}, tensors, "does not say which model"),
        ({"base_model_name_or_path": "."}, tensors, "is no model"),
        ({"base_model_name_or_path": str(tmp_path / "gone")}, tensors, "base model .*gone cannot be had"),
        ({}, half, "1 of its weights are missing"),
        ({}, wide, "does not fit its base model"),
        ({}, None, "has no adapter_model.safetensors"),
    ]
    for number, (changes, weights, what) in enumerate(cases):
        bad = tmp_path / f"bad{number}"
        shutil.copytree(good, bad)
        (bad / "adapter_config.json").write_text(json.dumps(config | changes))
        (bad / "adapter_model.safetensors").unlink()
        if weights is not None:
            save_file(weights, bad / "adapter_model.safetensors")
        with pytest.raises(InputError, match=what) as caught:
            load(str(bad))
        assert "\n" not in str(caught.value)


def test_weights_that_the_class_does_not_load_outlive_healing(tmp_path, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"^mtp\."])
    folder = write_unpruned("llama", tmp_path / "model")
    head = {"mtp.fc.weight": torch.arange(6.0)}
    save_file(load_file(folder / "model.safetensors") | head, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(str(folder))
    out = write_merged(loaded, tmp_path / "out", record=record(loaded), verify=False)
    written = load_file(out / "model.safetensors")
    assert torch.equal(written["mtp.fc.weight"], head["mtp.fc.weight"])
