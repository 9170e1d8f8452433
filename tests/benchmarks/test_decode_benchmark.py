"""The decode benchmark: what it counts, and that it runs to its line of figures."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from shoal.data.clip import Row

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("decode_benchmark", BENCHMARKS / "decode.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


def test_tokens_are_the_same_where_they_stand_at_the_same_place(benchmark):
    assert benchmark.same_tokens([[1, 2, 3], [4]], [[1, 2, 3], [4]]) == 1
    assert benchmark.same_tokens([[1, 2, 3, 4]], [[1, 9, 3]]) == 0.5
    assert benchmark.same_tokens([[1]], [[1, 2]]) == 0.5


def test_every_band_of_lengths_has_as_many_rows_and_the_order_stays(benchmark):
    words = [1, 30, 2, 8, 3, 9, 14, 26, 20, 5]
    rows = [Row(str(place), Path("x.wav"), 1.0, text="a " * count) for place, count in enumerate(words)]
    assert [len(row.text.split()) for row in benchmark.mixed(rows, 4)] == [1, 30, 8, 14]
    assert len(benchmark.mixed(rows, 8)) == 8


def test_it_runs_to_one_line_of_figures(benchmark, monkeypatch, capsys):
    arguments = "decode.py --shape tiny --clips 6 --batch 3 --runs 1"
    monkeypatch.setattr(sys, "argv", arguments.split())
    monkeypatch.setattr(benchmark, "LENGTHS", (5, 20))
    monkeypatch.setattr(benchmark, "LIMITS", (2, 12))
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["identical_tokens"] == found["identical_rows"] == 1
    assert found["decode_speedup"] > 0
