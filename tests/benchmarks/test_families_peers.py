"""The families benchmark calls a folder right only if it is, and counts what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: __import__(name, fromlist=["it"])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("support", "families_peers")]:
        del sys.modules[name]


@pytest.fixture
def llama(part, tmp_path):
    models, found = part("support.family_models"), part("support.family_reference")
    case = next(case for case in models.sources() if case.class_name == "LlamaForCausalLM")
    (tmp_path / "source").mkdir()
    models.save_source(case, tmp_path / "source")
    return case, tmp_path, found.reference(case, tmp_path / "source")


def pruned_by_hand(source: Path, out: Path, expected, *, rename=True) -> None:
    """The checkpoint's file without layers 2 and 3, the later ones renamed."""
    out.mkdir()
    tensors = {}
    for name, value in load_file(source / "model.safetensors").items():
        if name.startswith(("model.layers.2.", "model.layers.3.")):
            continue
        for old, new in (("4", "2"), ("5", "3")) if rename else ():
            name = name.replace(f"model.layers.{old}.", f"model.layers.{new}.")
        tensors[name] = value
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    expected.config.save_pretrained(out)


def test_a_right_folder_is_equal(part, llama):
    case, folder, expected = llama
    pruned_by_hand(folder / "source", folder / "out", expected)
    found = part("support.family_reference").check(case, folder / "out", expected)
    assert found.equal
    assert found.depth == 4
    assert len(expected.influence) == 6


def test_layers_that_are_not_renamed_are_noticed(part, llama):
    case, folder, expected = llama
    pruned_by_hand(folder / "source", folder / "out", expected, rename=False)
    found = part("support.family_reference").check(case, folder / "out", expected)
    assert not found.equal
    assert found.keys == {"newly initialised": 18, "ignored": 18}


def test_the_unpruned_model_is_not_equal_and_an_empty_folder_has_no_weights(part, llama):
    case, folder, expected = llama
    reference = part("support.family_reference")
    found = reference.check(case, folder / "source", expected)
    assert found.loads
    assert not found.keys
    assert not found.equal
    assert str(reference.check(case, folder / "nowhere", expected)) == "no weights"


def test_a_wrong_config_is_told_apart_from_wrong_weights(part, llama):
    case, folder, expected = llama
    reference = part("support.family_reference")
    pruned_by_hand(folder / "source", folder / "out", expected)
    (folder / "out" / "config.json").write_bytes((folder / "source" / "config.json").read_bytes())
    assert not reference.check(case, folder / "out", expected).equal
    assert reference.check_repaired(case, folder / "out", expected).equal


def test_controls_are_not_counted_and_success_is_not_an_exit_code(part):
    bench, tools, reference = (
        part(name) for name in ("families_peers", "support.family_tools", "support.family_reference")
    )
    right = reference.Check(weights=True, loads=True, depth=4, difference=0.0)
    wrong = reference.Check(weights=True, loads=True, keys={"ignored": 1}, depth=6, difference=2.0)
    results = {
        "A": [tools.Outcome("shoal", "x", 0, "", right), tools.Outcome("mergekit", "x", 0, "", wrong, right)],
        "B": [tools.Outcome("shoal", "x", 2, "no", reference.Check())],
        "LlamaForCausalLM": [tools.Outcome("shoal", "x", 0, "", right)],
    }
    found = bench.figures(results, {})
    assert found["audio_classes"] == 2
    assert found["shoal_as_documented"] == 1
    assert found["mergekit_in_any_way"] == 0
    assert found["mergekit_config_corrected"] == 1
    assert found["mergekit_exit_0_but_wrong"] == 1
