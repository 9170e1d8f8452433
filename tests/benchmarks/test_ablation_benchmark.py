"""The arithmetic of the ablation benchmark: what a race costs, and who wins it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("ablation_benchmark", BENCHMARKS / "ablation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


def test_a_clip_costs_the_whole_decoder_once_and_what_comes_after_each_layer(benchmark):
    assert benchmark.cost([], 4) == 4
    assert benchmark.cost([3], 4) == 4
    assert benchmark.cost([0, 1, 2, 3], 4) == 4 + 3 + 2 + 1
    assert benchmark.evaluation(4) == 4 + 4 * 3


def test_a_race_without_losers_saves_nothing_and_one_with_a_clear_winner_stops(benchmark):
    equal = np.ones((64, 4))
    saving, agrees, left = benchmark.one_race(equal, np.ones(64, dtype=np.int64))
    assert (saving, agrees, left) == (1.0, True, 4)
    clear = equal * np.arange(4) + np.random.default_rng(0).normal(0, 1e-3, equal.shape)
    saving, agrees, left = benchmark.one_race(clear, np.ones(64, dtype=np.int64))
    assert (saving, agrees, left) == (8.0, True, 1)
