"""A light run of the simulations: intervals cover, tests have their size, and what once was printed did not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CORPORA = 120


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("coverage")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("support", "coverage")]:
        del sys.modules[name]


def simulated(trial, case):
    rows = [trial(case, seed) for seed in range(CORPORA)]
    return {name: sum(row[name] for row in rows) / CORPORA for name in rows[0]}


def test_intervals_by_speaker_cover_where_those_by_percentile_do_not(benchmark):
    shares = simulated(benchmark.coverage, benchmark.Case("", speakers=5, spread=0.08))
    assert shares["percentile"] < 0.90
    assert min(shares["rate"], shares["difference"], shares["mean"]) > 0.91


def test_loops_are_covered_by_the_bound_alone(benchmark):
    shares = simulated(benchmark.coverage, benchmark.Case("", clips=44, loops=0.02))
    assert shares["rate"] < 0.92
    assert shares["bound"] > 0.93


def test_the_paired_test_has_its_size_under_loops(benchmark):
    shares = simulated(benchmark.size, benchmark.Case("", clips=44, loops=0.02))
    assert shares["sign flips"] < 0.10
    found = simulated(benchmark.size, benchmark.Case("", clips=200, added=0.04))
    assert found["sign flips"] > 0.9


def test_no_group_differs_where_none_does(benchmark):
    assert simulated(benchmark.family, benchmark.Case("", clips=100))["Holm"] < 0.10


def test_a_rate_is_what_the_corpora_have_in_the_long_run(benchmark):
    """The truth that coverage is measured against."""
    for case in (*benchmark.PLAIN[-1:], *benchmark.LOOPS[-1:]):
        corpora = [benchmark.draw(case, np.random.default_rng(seed)) for seed in range(200)]
        words = sum(corpus.words.sum() for corpus in corpora)
        assert sum(corpus.first.sum() for corpus in corpora) / words == pytest.approx(case.rate, rel=0.05)
        assert sum(corpus.second.sum() for corpus in corpora) / words == pytest.approx(case.other_rate, rel=0.05)
