"""The whole way on a tiny random SpeechLLM: every file is there, the checkpoint loads, and again is quick."""

from __future__ import annotations

import json

import pytest
import torch
from speech_llm_parts import tiny
from transformers import AutoModelForCausalLM

import shoal
from card_documents import delta, info, plan, scores, system
from shoal.data.settings import DataSettings
from shoal.demo import clips_manifest
from shoal.demo.run import Demo, DemoResult, pick
from shoal.demo.settings import DemoSettings
from shoal.models.settings import ModelSettings
from shoal.schema import load_document


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    model, processor = tiny("whisper", "llama", "mlp")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return Demo(
        folder / "out",
        str(folder / "model"),
        [str(clips_manifest())],
        DataSettings(limit=12),
        ModelSettings(),
        DemoSettings(sizes=(1, 2), strategies=("contiguous", "random"), max_new_tokens=4),
        silent,
        silent,
    )


@pytest.fixture(scope="module")
def result(demo: Demo) -> DemoResult:
    return demo.run()


def test_every_step_leaves_its_file(demo: Demo, result: DemoResult) -> None:
    kinds = {
        load_document(demo.out / f"{name}.json").kind for name in ("audit", "comparison", "scores", "bench", "plan")
    }
    assert kinds == {"audit", "comparison", "scores", "bench", "plan"}
    assert sorted(path.stem for path in (demo.out / "plans").iterdir()) == [
        "contiguous-1",
        "contiguous-2",
        "random-1",
        "random-2",
    ]
    page = result.report.read_text()
    assert page.count("<h2") >= 6
    assert "Layers were chosen, and healing was fitted, on 6 clips; every score is on 6 others" in page
    assert "Both halves are of the same voice" in page


def test_no_clip_that_was_healed_on_is_scored(demo: Demo, result: DemoResult) -> None:
    healed = sorted((demo.out / "healed").iterdir())
    assert healed
    chosen = json.loads((demo.out / "audit.json").read_text())["data"]["fingerprint"]
    for folder in healed:
        record = json.loads((folder / "shoal-heal.json").read_text())
        assert (record["target"], record["data"]["fingerprint"]) == ("linear", chosen)
    scores = shoal.Scores.load(demo.out / "scores.json")
    assert (scores.data.clips, scores.data.fingerprint != chosen) == (6, True)
    assert [system.name for system in scores.systems if system.healed] == [folder.name for folder in healed]
    assert all(list(system.controls) == ["shuffled", "silent"] for system in scores.systems)


def test_the_checkpoint_is_the_picked_plan_and_loads_with_the_stock_class(result: DemoResult) -> None:
    config = json.loads((result.checkpoint / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 4 - len(result.plan.layers)
    model, report = AutoModelForCausalLM.from_pretrained(
        result.checkpoint, trust_remote_code=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert len(model.get_decoder().layers) == 4 - len(result.plan.layers)
    assert shoal.load(str(result.checkpoint)).info().removed_layers == result.plan.layers


def test_the_card_of_the_checkpoint_has_its_scores(demo: Demo, result: DemoResult) -> None:
    card = (result.checkpoint / "README.md").read_text()
    scores = shoal.Scores.load(demo.out / "scores.json")
    system = pick(scores, demo.settings.max_increase)
    assert system.absent_layers == result.plan.layers
    assert f"{100 * system.measures['WER'].value.value:.1f}" in card
    assert ("Speed and memory: `shoal bench` was not run" in card) == bool(system.healed)
    assert len(list((result.checkpoint / "validation").iterdir())) == (1 if system.healed else 3)
    assert "With the wrong audio, in asr" in card


def test_again_runs_no_forward_pass(demo: Demo, result: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_, **__: pytest.fail("ran the model"))
    again = demo.run()
    assert again.plan.layers == result.plan.layers


def test_the_pick_is_the_largest_plan_within_the_limit(demo: Demo, result: DemoResult) -> None:
    scores = shoal.Scores.load(demo.out / "scores.json")
    loose, strict = pick(scores, float("inf")), pick(scores, -1.0)
    assert len(loose.absent_layers) == 2
    best = min(system.measures["WER"].value.value for system in scores.systems[1:])
    assert strict.measures["WER"].value.value == best


def test_the_bound_of_the_increase_decides() -> None:
    """Increases of 10 % [9, 11] and 24.5 % [23.5, 25.5]."""
    plans = [
        system("one", 0.22, delta(0.02, 0.1), plan=plan([1])),
        system("two", 0.25, delta(0.05, 0.245), plan=plan([1, 2])),
    ]
    document = scores(info(), [system("full"), *plans])
    assert pick(document, 0.25).name == "one"
    assert pick(document, 0.26).name == "two"
    # No upper bound is within the limit: then the values decide.
    wide = [system("one", 0.22, delta(0.02, 0.1, reach=0.5), plan=plan([1])), system("two", 0.21, plan=plan([1, 2]))]
    assert pick(scores(info(), [system("full"), *wide]), 0.2).name == "one"
