"""The arithmetic of the benchmark of large evaluations, and that its manifest can be read."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shoal.data import read_manifests

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("evaluate_scale", BENCHMARKS / "evaluate_scale.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "evaluate_scale", module)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


def test_rows_are_segments_of_recordings_with_ids_of_their_own(benchmark, tmp_path):
    (tmp_path / "recordings").mkdir()
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        soundfile.write(tmp_path / "recordings" / f"{name}.flac", np.zeros(int(seconds * 8000)), 8000)
    clips = benchmark.write_clips(tmp_path / "clips", tmp_path / "recordings")
    benchmark.write_manifest(tmp_path / "many.jsonl", clips, 5)
    data = read_manifests(tmp_path / "many.jsonl", max_bad=0)
    assert [(row.audio.name, row.offset) for row in data.rows] == [
        ("a.wav", 0.0),
        ("a.wav", 0.4),
        ("b.wav", 0.0),
        ("a.wav", 0.0),
        ("a.wav", 0.4),
    ]
    assert len(set(data.ids())) == 5
    assert len({row.text for row in data.rows}) > 3


def test_without_recordings_it_says_what_to_give(benchmark, tmp_path):
    with pytest.raises(SystemExit, match="--clips"):
        benchmark.write_clips(tmp_path / "clips", tmp_path)


def test_figures_are_of_the_largest_size_over_the_smallest(benchmark):
    usage = benchmark.Usage
    small = benchmark.Measured(100, usage(10.0, 500, 400), usage(2.0, 300, 200))
    large = benchmark.Measured(1000, usage(50.0, 600, 500), usage(5.0, 330, 230))
    assert benchmark.figures([small, large]) == {
        "memory_growth": 1.2,
        "scoring_memory_growth": 1.1,
        "bytes_per_row": 0.1111,
        "speed_ratio": 2.0,
        "resume_over_decode": 0.1,
        "rows": 1000,
        "rows_per_second": 20.0,
    }


def test_scores_are_compared_without_when_and_how_fast(benchmark, tmp_path):
    told = []
    for name, seconds in (("one", 1.0), ("two", 2.0)):
        system = {"wer": 0.5} | dict.fromkeys(benchmark.TIMES, seconds)
        (tmp_path / name).mkdir()
        scores = {"provenance": {"created": name}, "systems": [system]}
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
        told.append(benchmark.told(tmp_path / name))
    assert told[0] == told[1] == {"systems": [{"wer": 0.5}]}
