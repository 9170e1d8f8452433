"""Verification in a fresh process: a good checkpoint passes, each kind of sabotage is caught."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from shoal.errors import VerificationError
from shoal.pruning import verify, verify_child
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.verify import expectation, verify_checkpoint, verify_checkpoints
from shoal.pruning.verify_child import checkpoint_checks
from tiny_models import prompts, tiny

CASES = {"padded": prompts(2, 9), "single": prompts(1, 5, padding=0, seed=2)}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A pruned Gemma 3 (local and global layers, window 4) on disk, and what it has to be."""
    model = prune_in_place(tiny("gemma3"), [0, 3])
    folder = tmp_path_factory.mktemp("good")
    model.save_pretrained(folder)
    return folder, expectation(model, CASES)


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(fresh_processes):
    """With all its imports, wherever a process is started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_run_child", fresh_processes.get("_run_child", verify._run_child))
        yield


@pytest.fixture
def folder(good, tmp_path):
    """A copy to damage."""
    return shutil.copytree(good[0], tmp_path / "copy")


def failed_here(folder, good) -> set[str]:
    """The same checks in this process, which is quicker."""
    checks = checkpoint_checks(folder, good[1].facts, good[1].tensors)
    return {check["name"] for check in checks if not check["passed"]}


def edit_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def swap_layers(tensors) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        other = name.replace(".layers.1.", ".layers.2.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def nudge(tensors) -> None:
    """One value of one unused token's embedding: no logit shows it."""
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] += 1e-7


BAD_INDEX = """
from transformers import Gemma3ForCausalLM

class Careless(Gemma3ForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model.layers[2].self_attn.layer_idx = 1
"""

FORGETFUL = """
from transformers import Gemma3ForCausalLM

class Forgetful(Gemma3ForCausalLM):
    def save_pretrained(self, folder, **options):
        state = self.state_dict()
        state["model.norm.weight"] = state["model.norm.weight"] + 1
        super().save_pretrained(folder, state_dict=state, **options)
"""


def add_code(folder, name: str, code: str, class_name: str = "Careless") -> None:
    (folder / f"{name}.py").write_text(code)
    edit_config(folder, auto_map={"AutoModelForCausalLM": f"{name}.{class_name}"})


FRESH = {
    "good": lambda f: None,
    "careless": lambda f: add_code(f, "careless", BAD_INDEX),
    "needy": lambda f: add_code(f, "needy", "import shoal\n" + BAD_INDEX),
    "forgetful": lambda f: add_code(f, "forgetful", FORGETFUL, "Forgetful"),
    "nudged": lambda f: edit_weights(f, nudge),
}
"""What is done to a checkpoint before a fresh process looks at it."""


@pytest.fixture(scope="module")
def reports(good, tmp_path_factory):
    """What one fresh process says of all of them."""
    place, jobs = tmp_path_factory.mktemp("fresh"), []
    for name, sabotage in FRESH.items():
        sabotage(shutil.copytree(good[0], place / name))
        jobs.append((place / name, good[1]))
    return dict(zip(FRESH, verify_checkpoints(jobs), strict=True))


def failed(report) -> list[str]:
    return [check.name for check in report.failures]


def test_a_good_checkpoint_passes_every_check(good, reports):
    report = reports["good"]
    assert [check.name for check in report.checks] == [
        "load", "keys", "depth", "config", "tensors", "logits", "round_trip", "cache",
    ]  # fmt: skip
    assert report.passed
    assert not failed_here(good[0], good)
    assert report.checks[5].difference <= report.checks[5].tolerance


def test_layers_that_share_a_cache_slot_are_caught(reports):
    assert failed(reports["careless"]) == ["cache"]


def test_a_checkpoint_that_needs_shoal_to_load_is_caught(reports):
    assert failed(reports["needy"]) == ["load"]


def test_a_checkpoint_that_is_another_after_saving_it_again_is_caught(reports):
    assert failed(reports["forgetful"]) == ["round_trip"]


def test_several_folders_share_a_process_and_keep_their_reports(reports):
    assert failed(reports["nudged"]) == ["tensors", "round_trip"]


@pytest.mark.parametrize(
    ("sabotage", "caught_by"),
    [
        (lambda f: edit_config(f, num_hidden_layers=5, layer_types=["full_attention"] * 5), "keys"),
        (lambda f: edit_config(f, num_hidden_layers=3, layer_types=["full_attention"] * 3), "depth"),
        (lambda f: edit_config(f, layer_types=["full_attention"] * 4), "config"),
        (lambda f: edit_weights(f, swap_layers), "logits"),
        (lambda f: edit_weights(f, nudge), "tensors"),
        (lambda f: edit_weights(f, lambda t: t.pop("model.norm.weight")), "keys"),
        (lambda f: (f / "config.json").write_text("{"), "load"),
    ],
    ids=[
        "layer too many",
        "layer too few",
        "layer types",
        "swapped",
        "one value",
        "missing",
        "broken config",
    ],
)
def test_sabotage_is_caught(folder, good, sabotage, caught_by):
    sabotage(folder)
    assert caught_by in failed_here(folder, good)


def test_a_child_that_dies_is_an_error_not_a_pass(good, monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(verify, "CHILD", script)
    with pytest.raises(VerificationError, match="ended with 3"):
        verify_checkpoint(*good)


def test_what_there_is_no_memory_for_is_said_to_be_not_done(folder, good, monkeypatch):
    monkeypatch.setattr(verify_child.psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    checks = {check["name"]: check["detail"] for check in checkpoint_checks(folder, good[1].facts, good[1].tensors)}
    assert "not done" in checks["round_trip"]
