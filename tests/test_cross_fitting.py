"""Chosen on one half and measured on the other: how often the interval holds what was chosen, and what noise hides."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.statistics import disattenuated, halves_of, held_out, make_resampler, reliability, spearman

LEVEL, SAMPLES = 0.95, 200


def halves(clips: int, seed: int = 0):
    return halves_of(make_resampler([None] * clips, replicates=0, seed=0), np.ones(clips, bool), seed=seed)


def chosen(sums: np.ndarray, split) -> np.ndarray:
    return split.drawn(sums).argmin(axis=1)


def test_halves_are_halves_of_what_was_measured_and_of_the_rest():
    measured = np.arange(11) % 3 == 0
    split = halves_of(make_resampler([None] * 11, replicates=0, seed=0), measured)
    assert (split.weights[0::2] + split.weights[1::2] == 1).all()
    assert set(split.weights[:, measured].sum(axis=1)) == {2}
    assert set(split.weights[:, ~measured].sum(axis=1)) == {3, 4}
    assert len(np.unique(split.weights, axis=0)) > 30


def regrets(clips: int, means: np.ndarray, metric: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The interval of the regret of a noisy metric against noisy, skew measurements, and the regret in truth."""
    rng, split = np.random.default_rng(seed), halves(clips, seed)
    counts = rng.integers(5, 20, clips).astype(np.float64)
    truth = counts[:, None] * (means + np.exp(rng.standard_normal((clips, len(means)))))
    guess = counts[:, None] * (metric + rng.standard_normal((clips, len(means))))
    picked, best = chosen(guess, split), chosen(truth, split)
    estimate = held_out(truth[:, picked] - truth[:, best], counts, split, LEVEL)
    return estimate.low, estimate.high, float((means[picked] - means[best]).mean())


@pytest.mark.parametrize("clips", [20, 44])
@pytest.mark.parametrize("metric", [np.zeros(28), np.r_[-9, np.zeros(27)]], ids=["noisy metric", "sure metric"])
def test_of_28_equal_blocks_none_seems_to_cost_anything(clips, metric):
    """On the same clips the interval excluded 0 in 72 to 75 % of samples."""
    bounds = [regrets(clips, np.zeros(28), metric, seed)[:2] for seed in range(SAMPLES)]
    assert np.mean([low > 0 or high < 0 for low, high in bounds]) <= 0.06


@pytest.mark.parametrize("gap", [0.5, 2.0])
def test_the_interval_holds_a_real_regret(gap):
    """The metric is sure of a block that loses more than the best one."""
    means, metric = np.r_[0, gap * np.ones(9)], np.r_[0, -9, np.zeros(8)]
    found = np.array([regrets(30, means, metric, seed) for seed in range(SAMPLES)])
    assert np.mean((found[:, 0] <= found[:, 2]) & (found[:, 2] <= found[:, 1])) >= 0.93
    if gap == 2:
        assert np.mean(found[:, 0] > 0) > 0.8


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_rank_correlation_without_noise_is_that_of_the_means(shared):
    """Noise lowers the one that is observed; noise that both have on the same clips raises it."""
    rng, clips, blocks = np.random.default_rng(0), 44, 30
    real = np.linspace(0, 1, blocks)
    order = np.argsort(real + 0.3 * rng.standard_normal(blocks)).argsort() / blocks
    expected = spearman(order[None], real[None])[0]
    seen, cleaned = [], []
    for seed in range(60):
        split, both = halves(clips, seed), rng.normal(0, shared, (clips, blocks))
        x, y = (mean + both + rng.normal(0, 1 - shared / 2, (clips, blocks)) for mean in (order, real))
        seen.append(spearman(x.mean(0)[None], y.mean(0)[None])[0])
        cleaned.append(disattenuated(split.drawn(x), split.drawn(y)))
    assert np.mean(cleaned) == pytest.approx(expected, abs=0.04)
    assert shared or np.mean(seen) < expected - 0.08


def test_reliability_steps_the_agreement_of_halves_up_to_the_whole():
    rng, clips = np.random.default_rng(1), 60
    sums = np.linspace(0, 1, 200) + rng.normal(0, 3, (clips, 200))
    again = sums.mean(axis=0), (np.linspace(0, 1, 200) + rng.normal(0, 3, (clips, 200))).mean(axis=0)
    expected = spearman(again[0][None], again[1][None])[0]
    assert reliability(halves(clips).drawn(sums)) == pytest.approx(expected, abs=0.1)


def test_an_order_that_does_not_repeat_has_no_correlation_without_noise():
    rng, split = np.random.default_rng(1), halves(60)
    noise, sums = (split.drawn(mean + rng.normal(0, 1, (60, 30))) for mean in (0, np.arange(30)))
    assert reliability(noise) < 0.5 < reliability(sums)
    assert disattenuated(noise, sums) is None
