"""An audio LLM of a stock class, from its folder to a verified checkpoint, by the commands of the README."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
import soundfile

from checkpoint_tensors import changed_tensors
from shoal.cli import main
from tiny_audio import BUILDS
from tiny_speech import write_clips

NAME = "Qwen2AudioForConditionalGeneration"
TEMPLATED = "AudioFlamingo3ForConditionalGeneration"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    BUILDS[NAME].build(6).save_pretrained(folder, max_shard_size="60KB")
    BUILDS[NAME].processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 3)


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_commands_of_the_readme(model, manifest, tmp_path, capsys):
    audit, plan, scores, bench = (tmp_path / name for name in ("audit", "plan.json", "scores", "bench.json"))
    for arguments in (
        ["audit", model, "--data", manifest, "--out", audit, "--replicates", 20],
        ["compare", audit / "audit.json"],
        ["select", audit / "audit.json", "--layers", 2, "--out", plan],
        ["evaluate", model, "--data", manifest, "--plan", plan, "--out", scores, "--max-new-tokens", 4],
        ["bench", model, "--data", manifest, "--plan", plan, "--out", bench, "--clips", 1, "--repeats", 1],
        ["prune", model, "--plan", plan, "--out", tmp_path / "memory", "--how", "memory"],
        ["prune", model, "--plan", plan, "--out", tmp_path / "disk", "--how", "disk"],
        ["report", audit / "audit.json", plan, scores / "scores.json", bench, "--out", tmp_path / "r.html"],
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 0, f"{arguments[0]}: {err}"
    assert json.loads((audit / "audit.json").read_text())["model"]["kind"] == "audio_llm"
    checks = [
        json.loads((tmp_path / way / "shoal-verification.json").read_text())["checks"] for way in ("memory", "disk")
    ]
    assert [check["name"] for check in checks[0]] == [check["name"] for check in checks[1]]
    assert {"logits", "round_trip", "cache"} <= {check["name"] for check in checks[0]}


def test_a_folder_without_its_processor_says_so(model, manifest, tmp_path, capsys):
    BUILDS[NAME].build(6).save_pretrained(tmp_path / "bare")
    for arguments in (
        ["audit", tmp_path / "bare", "--data", manifest, "--out", tmp_path / "audit"],
        ["evaluate", tmp_path / "bare", "--data", manifest, "--out", tmp_path / "scores"],
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert "no processor" in err.strip().splitlines()[-1]
        assert not (tmp_path / "audit").exists()
    code, _, _ = run(capsys, "prune", tmp_path / "bare", "--layers-list", "1,3", "--out", tmp_path / "out")
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--how", "telepathy"], "--how: unknown how 'telepathy'; use auto, memory or disk"),
        (["--how", "disk", "--layers-list", "1,99"], "99"),
        (["--how", "disk", "--layers-list", "5"], "last"),
    ],
)
def test_bad_input_to_prune_is_one_line(model, tmp_path, capsys, arguments, words):
    given = arguments if "--layers-list" in arguments else [*arguments, "--layers-list", "1"]
    code, out, err = run(capsys, "prune", model, *given, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert words in err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_is_pruned_and_says_what_was_not_checked(model, tmp_path, capsys, monkeypatch):
    # By name: `shoal.prune` is the function of the API where it is looked up as an attribute.
    from_folder = import_module("shoal.pruning.from_folder")
    monkeypatch.setattr(from_folder, "fits_in_memory", lambda path: False)
    code, out, _ = run(capsys, "prune", model, "--layers-list", "1,3", "--out", tmp_path / "out")
    assert code == 0
    assert "verified structure" in out
    assert "logits were not compared" in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "not loaded" in card
    assert "did not fit in memory" in card.partition("## Not validated")[2]
    assert changed_tensors(tmp_path / "out") == []


def test_a_clip_longer_than_the_window_is_refused_before_anything_runs(model, tmp_path, capsys):
    manifest = write_clips(tmp_path / "clips", 1, duration=2.5)
    soundfile.write(tmp_path / "clips" / "clip0.wav", np.ones(40_000) / 9, 16_000)
    code, out, err = run(capsys, "audit", model, "--data", manifest, "--out", tmp_path / "audit")
    assert (code, out) == (2, "")
    assert "hears 2 s of a clip" in err.strip().splitlines()[-1]


def test_a_checkpoint_without_its_chat_template_is_pruned_and_says_that_it_was_not_heard(tmp_path, capsys, manifest):
    folder = BUILDS[TEMPLATED].write(tmp_path / "model")
    for path in folder.glob("*chat_template*"):
        path.unlink()
    code, out, err = run(capsys, "prune", folder, "--layers-list", "1", "--out", tmp_path / "out")
    assert code == 0, err
    assert "1 batches: text;" in out
    code, _, err = run(capsys, "audit", folder, "--data", manifest, "--out", tmp_path / "audit")
    assert code == 2
    assert "no chat template" in err.strip().splitlines()[-1]
