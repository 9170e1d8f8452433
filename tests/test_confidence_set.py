"""Sets of blocks that may be the best: against the definition in loops, and how often they hold the true best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from shoal.statistics import Resampler, confidence_set, make_resampler


def slow_set(sums: np.ndarray, counts: np.ndarray, resampler: Resampler, level: float) -> list[bool]:
    """One candidate, replicate and rival at a time, every rival that is not beyond doubt worse."""
    clusters = len(resampler.weights[0])
    parts = [[sum(sums[u, c] for u in np.flatnonzero(resampler.groups == k)) for c in range(sums.shape[1])]
             for k in range(clusters)]  # fmt: skip
    sizes = [sum(counts[u] for u in np.flatnonzero(resampler.groups == k)) for k in range(clusters)]

    def difference(i: int, j: int, weights: list[int]) -> tuple[float, float]:
        size = sum(w * s for w, s in zip(weights, sizes, strict=True))
        mean = sum(w * (p[i] - p[j]) for w, p in zip(weights, parts, strict=True)) / size
        squares = [w * (p[i] - p[j] - mean * s) ** 2 for w, p, s in zip(weights, parts, sizes, strict=True)]
        return mean, sum(squares) ** 0.5 / size

    limit, kept = student.ppf(1 - 1e-5, clusters - 1), []
    for i in range(sums.shape[1]):
        measured = {j: difference(i, j, [1] * clusters) for j in range(sums.shape[1]) if j != i}
        ratios = {j: mean / error for j, (mean, error) in measured.items()}
        rivals = [j for j, ratio in ratios.items() if ratio > -limit]
        drawn = []
        for weights in resampler.weights.tolist():
            again = {j: difference(i, j, weights) for j in rivals}
            floors = {j: max(error, measured[j][1] / clusters**0.5) for j, (_, error) in again.items()}
            drawn.append(max((again[j][0] - measured[j][0]) / floors[j] for j in rivals) if rivals else 0.0)
        largest = max((ratios[j] for j in rivals), default=-np.inf)
        kept.append(bool(max(ratios.values()) <= limit and largest <= np.quantile(drawn, level)))
    return kept


@pytest.mark.parametrize("speakers", [None, 9])
def test_a_confidence_set_is_what_it_is_defined_to_be(speakers):
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 9, 24)
    names = [None if speakers is None else str(k % speakers) for k in range(24)]
    resampler = make_resampler(names, replicates=60, seed=1)
    sizes = set()
    for gap in (0.05, 0.2, 1.0, 20.0):
        level = gap * np.array([0, 0.2, 1, 1.5, 2, 3])
        sums = counts[:, None] * (level + rng.normal(0, 1, (24, 6)))
        expected = slow_set(sums, counts, resampler, 0.95)
        assert confidence_set(sums, counts, resampler, 0.95).tolist() == expected
        sizes.add(sum(expected))
    assert len(sizes) > 2


def test_equals_stay_together_and_a_certain_best_stays_alone():
    counts, noise = np.full(30, 4), np.random.default_rng(0).normal(0, 0.1, 30)
    resampler = make_resampler([None] * 30, replicates=100, seed=0)
    sums = np.stack([noise, noise, noise + 9 + noise**2], axis=1)
    assert confidence_set(sums, counts, resampler, 0.95).tolist() == [True, True, False]
    assert confidence_set(sums[:, 1:], counts, resampler, 0.95).tolist() == [True, False]
    assert confidence_set(sums[:, 1:2], counts, resampler, 0.95).tolist() == [True]


def test_many_clusters_are_taken_in_groups():
    rng = np.random.default_rng(1)
    resampler = make_resampler([None] * 1000, replicates=50, seed=0)
    assert (resampler.coarse.clusters, resampler.coarse is resampler.coarse) == (256, True)
    sums = rng.normal([0, 0.01, 1], 1, (1000, 3))
    assert confidence_set(sums, np.ones(1000), resampler, 0.95).tolist() == [True, True, False]


@pytest.mark.parametrize("clips", [20, 44])
@pytest.mark.parametrize("means", [np.zeros(12), np.r_[0, 0, np.linspace(0, 2, 10)]], ids=["equal", "graded"])
def test_the_true_best_is_in_the_set_in_95_of_100_samples(clips, means):
    """Neighbouring blocks share layers, so their values go together; clips differ in length, and errors are skew."""
    rng, samples, held = np.random.default_rng(7), 200, 0
    for sample in range(samples):
        noise = rng.standard_normal((clips, len(means) + 2))
        noise = np.exp((noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / 3)
        counts = rng.integers(5, 20, clips)
        sums = counts[:, None] * (means + noise)
        resampler = make_resampler([None] * clips, replicates=199, seed=sample)
        held += confidence_set(sums, counts, resampler, 0.95)[0]
    assert held / samples >= 0.93
