"""Intervals against a slow bootstrap and against theory."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.statistics import ROWS, UnseenDraws, interval, make_resampler


def test_replicates_equal_a_loop_over_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    sums, counts = rng.random((7, 3)), rng.integers(1, 9, 7)
    resampler = make_resampler(["a", "a", "b", None, "c", "c", "c"], replicates=20, seed=4)
    clusters = {0: "a", 1: "a", 2: "b", 3: "solo", 4: "c", 5: "c", 6: "c"}
    column_of = {clusters[utterance]: resampler.groups[utterance] for utterance in clusters}
    got = resampler.means(sums, counts)
    for replicate in range(20):
        total, weight = np.zeros(3), 0.0
        for utterance, name in clusters.items():
            times = resampler.weights[replicate, column_of[name]]
            total += times * sums[utterance]
            weight += times * counts[utterance]
        assert got[replicate] == pytest.approx(total / weight)


def test_each_replicate_draws_as_many_clusters_as_there_are() -> None:
    resampler = make_resampler([None] * 12, replicates=50, seed=0)
    assert (resampler.weights.sum(1) == 12).all()
    assert len(set(resampler.groups.tolist())) == 12


def test_the_same_seed_gives_the_same_draws() -> None:
    first, second = (make_resampler(["x", "y", None], replicates=5, seed=3) for _ in range(2))
    assert (first.weights == second.weights).all()


def test_standard_error_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    resampler = make_resampler([None] * 400, replicates=4000, seed=1)
    spread = resampler.means(values[:, None], np.ones(400, dtype=np.int64)).std()
    assert spread == pytest.approx(values.std() / 20, rel=0.05)


def test_grouping_many_clusters_keeps_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    counts = np.ones(3000, dtype=np.int64)
    grouped = make_resampler([None] * 3000, replicates=3000, seed=1, max_clusters=500)
    assert grouped.clusters == 500
    assert grouped.means(values[:, None], counts).std() == pytest.approx(values.std() / 3000**0.5, rel=0.1)


def test_speakers_with_alike_clips_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=10), 20)[:, None]
    ones = np.ones(200, dtype=np.int64)
    speakers = [f"s{i // 20}" for i in range(200)]
    by_clip = make_resampler([None] * 200, replicates=500, seed=0).means(values, ones)
    by_speaker = make_resampler(speakers, replicates=500, seed=0).means(values, ones)
    narrow, wide = (np.ptp(interval(drawn, 0.95), axis=0)[0] for drawn in (by_clip, by_speaker))
    assert wide > 2 * narrow


def test_replicates_without_positions_are_left_out_of_the_interval() -> None:
    low, high = interval(np.array([[1.0], [np.nan], [2.0]]), 0.9)
    assert 1 <= low[0] <= high[0] <= 2


def test_draws_in_parts_are_those_of_one_call() -> None:
    replicates = 2 * ROWS + 7
    drawn = make_resampler([None] * 9, replicates=replicates, seed=11).weights
    at_once = np.random.default_rng(11).multinomial(9, np.full(9, 1 / 9), size=replicates)
    assert (drawn == at_once).all()


def test_totals_of_every_shape_are_sums_over_the_clips_drawn() -> None:
    rng = np.random.default_rng(2)
    resampler = make_resampler(["b", "a", None, "b", None], replicates=ROWS + 3, seed=0)
    values = rng.integers(0, 200, (5, 2)).astype(np.uint8)
    found, alone = resampler.totals(values), resampler.totals(values[:, 1])
    for replicate in (0, ROWS - 1, ROWS + 2):
        times = [int(resampler.weights[replicate, group]) for group in resampler.groups]
        lists = [row for row, number in zip(values.tolist(), times, strict=True) for _ in range(number)]
        assert found[replicate].tolist() == [sum(row[0] for row in lists), sum(row[1] for row in lists)]
        assert alone[replicate] == found[replicate, 1]


def test_no_clips_have_no_totals() -> None:
    resampler = make_resampler([], replicates=4, seed=0)
    assert resampler.totals(np.zeros((0, 3))).tolist() == [[0, 0, 0]] * 4


def share(totals):
    return totals[..., 0] / totals[..., 1]


def test_without_a_single_error_the_bound_is_the_rule_of_three() -> None:
    clips = np.array([[0.0, 1.0]] * 60)
    bound = UnseenDraws.of(share, clips, np.array([1.0, 1.0])).upper(0.95)
    assert bound == pytest.approx(1 - 0.05 ** (1 / 60), rel=0.03)
    assert UnseenDraws.of(share, clips, None).upper(0.95) == 0


def test_the_bound_is_that_of_plain_loops() -> None:
    """The definition of Gaffke: spacings of sorted uniform numbers weigh the sorted values and the bound."""
    rng = np.random.default_rng(3)
    losses = np.sort(rng.random(12))
    slow = []
    for _ in range(8000):
        cuts = [0.0, *sorted(rng.random(12).tolist()), 1.0]
        slow.append(sum((b - a) * z for a, b, z in zip(cuts[:-1], cuts[1:], [*losses, 2.0], strict=True)))
    clips = np.stack([losses, np.ones(12)], axis=1)
    drawn = UnseenDraws.of(share, clips, np.array([2.0, 1.0]))
    for confidence in (0.5, 0.95):
        assert drawn.upper(confidence) == pytest.approx(np.quantile(slow, confidence), rel=0.02)
    limit = float(np.quantile(slow, 0.9))
    assert drawn.p_value(limit) == pytest.approx(0.1, abs=0.012)


def test_rare_loops_that_the_sample_may_not_hold_are_covered() -> None:
    """1 clip in 50 costs 20 times what the others do; without the unseen clip the bound is too low half the time."""
    rng = np.random.default_rng(0)
    missed = {"seen": 0, "unseen": 0}
    for seed in range(200):
        errors = np.where(rng.random(40) < 0.02, 40.0, rng.binomial(9, 0.2, 40))
        clips, loop = np.stack([errors, np.full(40, 9.0)], axis=1), np.array([60.0, 9.0])
        truth = (0.02 * 40 + 0.98 * 1.8) / 9
        missed["seen"] += UnseenDraws.of(share, clips, None, draws=500, seed=seed).upper(0.95) < truth
        missed["unseen"] += UnseenDraws.of(share, clips, loop, draws=500, seed=seed).upper(0.95) < truth
    assert missed["seen"] > 60
    assert missed["unseen"] <= 10
