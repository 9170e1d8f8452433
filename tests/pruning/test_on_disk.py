"""Checkpoint folders: whole, verified, under their name only when both are true."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from full_run import examples
from shoal import machine
from shoal.errors import InputError, ModelError, PlanError, UsageError, VerificationError
from shoal.models.families import find
from shoal.models.lineage import removed_layers
from shoal.pruning.in_memory import pruned
from shoal.pruning.on_disk import prune, write_checkpoint
from shoal.pruning.verify import expectation
from shoal.pruning.verify_child import checkpoint_checks
from shoal.schema import ModelInfo, Plan, Provenance
from shoal.schema.verification import VerificationReport
from tiny_models import BUILDERS, VOCABULARY, prompts, tiny


def plan(layers: list[int], depth: int = 6, **extra) -> Plan:
    return Plan(provenance=Provenance(shoal="0"), model_ref="tiny", depth=depth, layers=layers, **extra)


def tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{index}": index for index in range(VOCABULARY)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")))
    made.chat_template = "{{ messages }}"
    return made


def loaded(model, path):
    """What `shoal.models.load` gives, as far as pruning needs it."""
    layers = find(model).layers(model)
    info = ModelInfo(
        ref="some/model",
        kind="causal_lm",
        class_name=type(model).__name__,
        family="causal_lm",
        depth=len(layers),
        hidden_size=32,
        decoder_layer_parameters=[sum(p.numel() for p in layer.parameters()) for layer in layers],
        total_parameters=model.num_parameters(),
        licence="Apache-2.0",
    )
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer(),
        processor=None,
        path=path,
        kind="causal_lm",
        family=find(model),
        info=lambda: info,
    )


@pytest.fixture
def source(tmp_path):
    """The folder a model came from, with files of all kinds beside the weights."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in (
        "LICENSE",
        "merges.txt",
        "README.md",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "config.json",
    ):
        (folder / name).write_text(f"old {name}")
    return folder


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_verified_folder_has_everything_and_the_model_is_untouched(tmp_path, source):
    model = tiny("gemma3")
    before = copy.deepcopy(model.config.to_dict())
    out = prune(loaded(model, source), plan([1, 2]), tmp_path / "out")
    assert model.config.to_dict() == before
    assert names(out) >= {"config.json", "model.safetensors", "generation_config.json", "chat_template.jinja"}
    assert names(out) >= {"LICENSE", "merges.txt", "tokenizer.json", "shoal-plan.json"}
    assert not {"pytorch_model.bin", "consolidated.safetensors", "speech_llm.json", "shoal-weights.json"} & names(out)
    assert VerificationReport.load(out / "shoal-verification.json").passed
    assert Plan.load(out / "shoal-plan.json").layers == [1, 2]
    assert AutoTokenizer.from_pretrained(out).chat_template == "{{ messages }}"
    assert names(tmp_path) == {"source", "out"}
    readme = (out / "README.md").read_text()
    for text in ("base_model: some/model", "1, 2 (the block [1, 3))", "Apache-2.0", "Not validated"):
        assert text in readme


removals = st.sets(st.integers(0, 5), min_size=1, max_size=5).map(sorted)


@settings(max_examples=examples(30), deadline=None)
@given(name=st.sampled_from(sorted(BUILDERS)), removed=removals)
def test_any_plan_on_any_architecture_reloads_equal(tmp_path_factory, name, removed):
    """All checks of the fresh process, in this one."""
    model, folder = tiny(name), tmp_path_factory.mktemp(name)
    cases = {"padded": prompts()}
    with pruned(model, removed):
        expected = expectation(model, cases)
    out = write_checkpoint(model, plan(removed, allow_last=True), folder / "out", cases={})
    checks = checkpoint_checks(out, expected.facts, expected.tensors)
    assert [check for check in checks if not check["passed"]] == []


def test_a_failed_verification_leaves_nothing(tmp_path, monkeypatch):
    model = tiny("llama")
    real = model.save_pretrained

    def damaged(folder, **kwargs):
        real(folder, **kwargs)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))

    monkeypatch.setattr(model, "save_pretrained", damaged)
    with pytest.raises(VerificationError, match="missing"):
        write_checkpoint(model, plan([1]), tmp_path / "out", cases={"padded": prompts()})
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, error):
    model = tiny("llama")

    def full(folder, **kwargs):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(InputError, match="disk is full") as caught:
        write_checkpoint(model, plan([1]), tmp_path / "out", cases={})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == set()


def test_too_little_space_is_noticed_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="are needed"):
        write_checkpoint(tiny("llama"), plan([1]), tmp_path / "out", cases={})
    assert names(tmp_path) == set()


def test_a_taken_folder_is_kept_unless_forced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    model = tiny("llama")
    with pytest.raises(UsageError, match="not empty"):
        write_checkpoint(model, plan([1]), out, cases={})
    assert names(out) == {"mine.txt"}
    write_checkpoint(model, plan([1]), out, cases={}, force=True)
    assert "mine.txt" not in names(out)
    assert names(tmp_path) == {"out"}


def test_the_models_own_folder_is_never_replaced(source):
    with pytest.raises(UsageError, match="own folder"):
        write_checkpoint(tiny("llama"), plan([1]), source, cases={}, source=source, force=True)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        write_checkpoint(tiny("llama"), plan([1]), tmp_path / "file" / "out", cases={})
    assert "\n" not in str(caught.value)


def test_a_plan_for_another_depth_writes_nothing(tmp_path):
    with pytest.raises(PlanError, match="8 layers"):
        write_checkpoint(tiny("llama"), plan([1], depth=8), tmp_path / "out", cases={})
    assert names(tmp_path) == set()


def test_unmerged_low_rank_weights_are_refused(tmp_path):
    model = tiny("llama")
    model.model.layers[0].mlp.add_module("lora_A", torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="not merged"):
        write_checkpoint(model, plan([1]), tmp_path / "out", cases={})


def test_pruning_twice_keeps_both_plans_and_counts_from_the_first_model(tmp_path):
    first = write_checkpoint(tiny("llama"), plan([1, 3]), tmp_path / "first", cases={})
    again = AutoModelForCausalLM.from_pretrained(first)
    second = write_checkpoint(again, plan([1], depth=4), tmp_path / "second", cases={}, source=first)
    assert removed_layers(first) == [1, 3]
    assert removed_layers(second) == [1, 2, 3]
    assert names(second) >= {"shoal-plan.json", "shoal-plan-1.json"}
