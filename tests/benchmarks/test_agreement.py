"""The benchmark's comparison with peers notices their faults, and only those."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.measurement.metrics import metric_slices
from shoal.measurement.sums import Sums
from shoal.schema import SCOPES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DEPTH, CLIPS = 5, 6


@pytest.fixture
def agreement(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("support.agreement", fromlist=["agreement"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


@pytest.fixture
def ours(agreement):
    """Two batches of three clips with different numbers of positions; one `last` position a clip."""
    columns = max(part.stop for part in metric_slices(DEPTH).values())
    generator = np.random.default_rng(0)
    counts = np.tile(np.arange(2, 2 + CLIPS)[:, None], (1, len(SCOPES)))
    counts[:, SCOPES.index("last")] = 1
    values = generator.random((CLIPS, len(SCOPES), columns)) * counts[:, :, None]
    names = [str(number) for number in range(CLIPS)]
    return agreement.Ours(Sums(DEPTH, names, [None] * CLIPS, values, counts), np.repeat([0, 1], CLIPS // 2))


def test_a_mean_of_batch_means_is_told_apart_from_a_mean_over_positions(agreement, ours):
    theirs = {"influence": ours.mean_of_batch_means("all", "influence").tolist()}
    found = agreement.with_optipfair(ours, theirs)
    assert found.difference == 0
    assert np.abs(ours.mean("all", "influence") - np.array(theirs["influence"])).max() > 1e-3


def test_pruneme_is_compared_from_layer_one_and_its_last_boundary_apart(agreement, ours):
    triangle = ours.triangle(ours.mean_of_batch_means("last", "angular"))
    rows = [list(row[1:]) for row in triangle[:-1]]
    for row in rows:
        row[-1] += 0.05
    found = agreement.with_pruneme(ours, {"rows": rows})
    assert found.difference == 0
    assert any("5.0e-02" in line for line in found.lines)


def test_reading_the_wrong_row_costs_short_transformers_its_choice_but_not_its_numbers(agreement, ours):
    triangle = ours.triangle(ours.mean("last", "angular"))
    matrix = np.zeros((DEPTH, DEPTH))
    for number, row in enumerate(triangle):
        matrix[number, : len(row)] = row
    starts = [int(matrix[n, : DEPTH - n].argmin()) for n in range(1, DEPTH)]
    found = agreement.with_short_transformers(ours, {"matrix": matrix.tolist(), "starts": starts, "batched": "works"})
    assert found.difference == 0
    assert found.same < found.sizes
    assert any(f"{DEPTH - 1} of {DEPTH - 1}" in line for line in found.lines)


@pytest.mark.usefixtures("agreement")
def test_jobs_run_in_reverse_every_second_time():
    from support.interleave import interleaved, median_ratio

    order: list[str] = []

    def job(name: str, seconds: float):
        def run() -> float:
            order.append(name)
            return seconds

        return run

    timings = interleaved({"a": job("a", 1.0), "b": job("b", 4.0)}, runs=2)
    assert "".join(order) == "ab" + "ab" + "ba"
    assert median_ratio(timings, "b", "a") == 4.0
