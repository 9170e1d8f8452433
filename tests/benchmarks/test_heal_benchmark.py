"""The training benchmark: both sides do the same step, and it says so or stops."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny_speech

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
KEYS = {
    "train_speedup",
    "train_speedup_receiver",
    "loss_difference",
    "gradient_cosine",
    "encode_seconds_per_clip",
    "pays_after_passes",
    "pays_after_steps",
    "train_speedup_with_encoding",
}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("heal_benchmark", BENCHMARKS / "heal.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "heal_benchmark", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place, loaded = tmp_path_factory.mktemp("model"), tiny_speech.loaded()
    loaded.model.save_pretrained(place)
    loaded.processor.save_pretrained(place)
    return place


def run(benchmark, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["heal.py", *map(str, arguments)])
    benchmark.main()


def arguments_for(folder, tmp_path, steps=1):
    manifest = tiny_speech.write_clips(tmp_path / "clips", 3 * (steps + 1))
    sizes = ("--clips", 3, "--steps", steps, "--runs", 1, "--cut", 1, 2, "--rank", 2)
    return "--model", folder, "--data", manifest, *sizes


def figures_of(output):
    return json.loads(output.splitlines()[-1])


def test_both_sides_do_the_same_step_and_the_last_line_holds_the_figures(
    benchmark, monkeypatch, folder, tmp_path, capsys
):
    run(benchmark, monkeypatch, *arguments_for(folder, tmp_path, steps=2))
    figures = figures_of(capsys.readouterr().out)
    assert figures.keys() == KEYS
    assert figures["loss_difference"] < 1e-3
    assert figures["gradient_cosine"] > 0.999
    assert figures["train_speedup"] > 0
    assert figures["train_speedup_receiver"] > 0
    assert figures["encode_seconds_per_clip"] > 0


def test_through_both_trainers_the_losses_of_all_steps_are_the_same(benchmark, monkeypatch, folder, tmp_path):
    seen = []
    monkeypatch.setattr(
        benchmark, "timed", lambda *given, timed=benchmark.timed: seen.append(timed(*given)) or seen[-1]
    )
    run(benchmark, monkeypatch, *arguments_for(folder, tmp_path, steps=2))
    assert len(seen) == 2
    for timings, losses in seen:
        assert [len(timings[name]) for name in ("plain", "shoal")] == [1, 1]
        assert len(losses["plain"]) == 3
        assert losses["plain"] == pytest.approx(losses["shoal"], rel=1e-3)


def test_another_step_gives_no_figures(benchmark, monkeypatch, folder, tmp_path, capsys):
    def other(loaded, items):
        return plain(loaded, [replace(items[0], response="no<|im_end|>"), *items[1:]])

    plain = benchmark.plain_step
    monkeypatch.setattr(benchmark, "plain_step", other)
    with pytest.raises(SystemExit, match="not the same step"):
        run(benchmark, monkeypatch, *arguments_for(folder, tmp_path))
    assert "train_speedup" not in capsys.readouterr().out


def test_dropout_in_the_plain_loop_is_noticed(benchmark, monkeypatch, folder, tmp_path):
    def dropping(*arguments, **options):
        loaded = load(*arguments, **options)
        loaded.model.encoder.dropout = 0.5
        return loaded

    load = benchmark.load
    monkeypatch.setattr(benchmark, "load", dropping)
    torch.manual_seed(0)
    with pytest.raises(SystemExit, match="not the same step"):
        run(benchmark, monkeypatch, *arguments_for(folder, tmp_path))


def test_without_speech_there_is_one_line_and_exit_2(benchmark, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(benchmark, monkeypatch, "--data", tmp_path / "none.jsonl")
    assert caught.value.code == 2
    assert "no such manifest" in capsys.readouterr().err


def test_too_few_clips_are_one_line_and_exit_2(benchmark, monkeypatch, folder, tmp_path, capsys):
    given = arguments_for(folder, tmp_path)
    with pytest.raises(SystemExit) as caught:
        run(benchmark, monkeypatch, *given, "--steps", 50)
    assert caught.value.code == 2
    assert "too few" in capsys.readouterr().err
