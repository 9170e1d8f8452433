"""Intervals and tests against slow loops, and against the truth on simulated speech."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shoal.evaluation.scores.errors import Wer
from shoal.evaluation.significance import PairedBootstrap, correct
from shoal.schema import Delta, Estimate
from shoal.settings import Intervals
from shoal.statistics.hypothesis_tests import flips_for, holm, sign_flip_p


def simulated(rng, utterances, rate, *, extra=0.0):
    """Errors of a baseline and of a worse system on the same utterances, and the reference lengths."""
    lengths = rng.integers(3, 20, utterances)
    difficulty = rng.beta(2, 2 / rate - 2, utterances)
    base = rng.binomial(lengths, difficulty)
    worse = base + rng.binomial(lengths, extra) if extra else base
    return base, worse, lengths


def error_rate(totals):
    return totals[..., 0] / totals[..., 1]


def rates_of(bootstrap, errors, lengths):
    return bootstrap.rates(error_rate, np.stack([errors, lengths], axis=1))


def slow_interval(statistic, clips, clusters, replicates, seed, level=0.95):
    """A studentised bootstrap in plain Python; standard errors by leaving out a cluster at a time (the jackknife)."""
    draw = random.Random(seed)
    members: dict[str, list[int]] = {}
    for index, cluster in enumerate(clusters):
        members.setdefault(cluster if cluster is not None else f"alone {index}", []).append(index)
    sums = [tuple(sum(column) for column in zip(*(clips[i] for i in group), strict=True)) for group in members.values()]

    def value_and_error(drawn):
        total = [sum(column) for column in zip(*drawn, strict=True)]
        without = [statistic([t - c for t, c in zip(total, one, strict=True)]) for one in drawn]
        mean = sum(without) / len(without)
        return statistic(total), ((len(drawn) - 1) / len(drawn) * sum((w - mean) ** 2 for w in without)) ** 0.5

    value, error = value_and_error(sums)
    distances = []
    for _ in range(replicates):
        again, spread = value_and_error([draw.choice(sums) for _ in sums])
        distances.append((again - value) / spread)
    distances.sort()
    tail = (1 - level) / 2
    student = stats.t.ppf(1 - tail, len(sums) - 1)
    high = min(-student, distances[int(tail * replicates)])
    low = max(student, distances[int((1 - tail) * replicates)])
    return value - low * error, value - high * error


@pytest.mark.parametrize("by_speaker", [False, True])
def test_intervals_equal_those_of_plain_loops(by_speaker):
    rng = np.random.default_rng(1)
    base, worse, lengths = simulated(rng, 60, 0.2, extra=0.05)
    clusters = [f"s{index % 15}" for index in range(60)] if by_speaker else [None] * 60
    bootstrap = PairedBootstrap.draw(clusters, replicates=4000, seed=3)
    wer = rates_of(bootstrap, worse, lengths)
    delta = bootstrap.delta(wer, rates_of(bootstrap, base, lengths))
    clips = list(zip(base.tolist(), worse.tolist(), lengths.tolist(), strict=True))
    for found, statistic in (
        (bootstrap.estimate(wer), lambda t: t[1] / t[2]),
        (delta.absolute, lambda t: (t[1] - t[0]) / t[2]),
        (delta.relative, lambda t: t[1] / t[0] - 1),
    ):
        low, high = slow_interval(statistic, clips, clusters, 2000, seed=5)
        assert found.low == pytest.approx(low, abs=0.09 * (high - low))
        assert found.high == pytest.approx(high, abs=0.09 * (high - low))
        assert found.low < found.value < found.high


def test_interval_covers_the_true_rate_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    corpora, covered, paired = 300, 0, 0
    for seed in range(corpora):
        base, worse, lengths = simulated(rng, 100, 0.2, extra=0.04)
        bootstrap = PairedBootstrap.draw([None] * 100, replicates=300, seed=seed)
        rates = rates_of(bootstrap, base, lengths)
        estimate = bootstrap.estimate(rates)
        change = bootstrap.delta(rates_of(bootstrap, worse, lengths), rates).absolute
        covered += estimate.low <= 0.2 <= estimate.high
        paired += change.low <= 0.04 <= change.high
    # Binomial spread over 300 corpora is 1.3 points.
    assert 0.92 <= covered / corpora <= 0.98
    assert 0.92 <= paired / corpora <= 0.98


def test_p_value_is_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(4)
    found = []
    for seed in range(200):
        lengths = np.full(80, 10)
        a, b = rng.binomial(10, 0.2, 80), rng.binomial(10, 0.2, 80)
        bootstrap = PairedBootstrap.draw([None] * 80, replicates=300, seed=seed)
        found.append(bootstrap.delta(rates_of(bootstrap, a, lengths), rates_of(bootstrap, b, lengths)).p_value)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    base, worse, lengths = simulated(rng, 200, 0.2, extra=0.1)
    bootstrap = PairedBootstrap.draw([None] * 200, replicates=1000, seed=0)
    change = bootstrap.delta(rates_of(bootstrap, worse, lengths), rates_of(bootstrap, base, lengths))
    assert change.p_value == pytest.approx(1 / 10_000)


def test_equal_systems_have_no_difference_and_p_one():
    base, _, lengths = simulated(np.random.default_rng(2), 50, 0.3)
    bootstrap = PairedBootstrap.draw([None] * 50, replicates=200, seed=0)
    rates = rates_of(bootstrap, base, lengths)
    delta = bootstrap.delta(rates, rates)
    assert (delta.absolute.value, delta.absolute.low, delta.absolute.high) == (0, 0, 0)
    assert delta.p_value == 1


def test_the_seed_decides_the_draw():
    base, _, lengths = simulated(np.random.default_rng(2), 50, 0.3)
    draws = [
        rates_of(PairedBootstrap.draw([None] * 50, replicates=100, seed=seed), base, lengths).resampled.replicates
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_one_cluster_gives_a_value_without_an_interval():
    bootstrap = PairedBootstrap.draw(["same", "same"], replicates=100, seed=0)
    rates = rates_of(bootstrap, np.array([1, 0]), np.array([4, 4]))
    estimate, delta = bootstrap.estimate(rates), bootstrap.delta(rates, rates)
    assert (estimate.value, estimate.low, estimate.high) == (0.125, None, None)
    assert delta.p_value is None


def test_a_perfect_baseline_has_no_relative_difference():
    bootstrap = PairedBootstrap.draw([None] * 3, replicates=100, seed=0)
    lengths = np.array([4, 4, 4])
    perfect, other = (rates_of(bootstrap, np.array(errors), lengths) for errors in ([0, 0, 0], [1, 0, 2]))
    assert bootstrap.delta(other, perfect).relative is None


def test_a_baseline_that_is_perfect_in_some_draws_leaves_the_relative_interval_open():
    bootstrap = PairedBootstrap.draw([None] * 4, replicates=500, seed=0)
    lengths = np.array([4, 4, 4, 4])
    nearly, other = (rates_of(bootstrap, np.array(errors), lengths) for errors in ([1, 0, 0, 0], [1, 1, 1, 1]))
    relative = bootstrap.delta(other, nearly).relative
    assert relative.value == 3
    assert (relative.low, relative.high) == (None, None)


def test_draws_without_a_reference_word_are_left_out():
    bootstrap = PairedBootstrap.draw([None] * 3, replicates=200, seed=0)
    rates = bootstrap.rates(Wer().value, np.array([[0, 0, 1, 0], [3, 1, 0, 0], [0, 0, 1, 0]]))
    assert np.isnan(rates.resampled.replicates).any()
    assert bootstrap.estimate(rates).high is not None


def test_the_p_value_is_the_share_of_swaps_that_differ_as_much():
    """Against itertools over all swaps, for a score that is no ratio of sums."""

    def score(totals):
        return np.sqrt(totals[..., 0] / totals[..., 2]) + totals[..., 1] / totals[..., 2] ** 2

    rng = np.random.default_rng(3)
    system, baseline = (rng.integers(1, 9, (7, 3)).astype(float) for _ in range(2))
    measured = abs(score(system.sum(axis=0)) - score(baseline.sum(axis=0)))
    swaps = []
    for swap in itertools.product([False, True], repeat=7):
        first = sum(b if swapped else a for a, b, swapped in zip(system, baseline, swap, strict=True))
        second = sum(a if swapped else b for a, b, swapped in zip(system, baseline, swap, strict=True))
        swaps.append(abs(score(first) - score(second)) >= measured * (1 - 1e-9))
    assert sign_flip_p(score, system, baseline) == sum(swaps) / 2**7
    # Too many to try: random ones come close.
    rough = sign_flip_p(score, np.tile(system, (3, 1)), np.tile(baseline, (3, 1)), flips=4000)
    finer = sign_flip_p(score, np.tile(system, (3, 1)), np.tile(baseline, (3, 1)), flips=20_000, seed=1)
    assert rough == pytest.approx(finer, abs=0.03)


def test_many_tests_can_all_be_significant():
    """No p-value is below one over the flips, which Holm's correction multiplies by the number of tests."""
    assert 900 / (flips_for(900) + 1) <= 0.05 / 10


def test_of_five_clusters_no_difference_is_significant():
    """The smallest of 2^5 swaps, both ways."""
    assert sign_flip_p(error_rate, np.array([[3.0, 9]] * 5), np.array([[1.0, 9]] * 5)) == 2 / 2**5


def rejected_by_the_textbook(p_values, alpha):
    """Holm's procedure: from the smallest on, stop at the first with p above alpha / (tests not yet decided)."""
    rejected = set()
    for place in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        if Fraction(p_values[place]) > Fraction(alpha) / (len(p_values) - len(rejected)):
            break
        rejected.add(place)
    return rejected


SHARES = st.integers(1, 1023).map(lambda count: count / 1024)


@given(st.lists(SHARES, max_size=8), SHARES)
def test_holms_adjusted_p_values_reject_what_his_procedure_rejects(p_values, alpha):
    adjusted = holm(p_values)
    assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected_by_the_textbook(p_values, alpha)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


def test_a_family_of_differences_is_corrected_without_those_that_have_no_p():
    family = [None, *(Delta(absolute=Estimate(value=0.1), p_value=p) for p in (0.04, None, 0.01))]
    correct(family)
    assert [delta.p_holm for delta in family[1:]] == [pytest.approx(0.04), None, pytest.approx(0.02)]


def test_the_standard_error_of_a_rate_is_that_of_theory():
    base, _, lengths = simulated(np.random.default_rng(6), 400, 0.2)
    bootstrap = PairedBootstrap.draw([None] * 400, replicates=3000, seed=0)
    rates = rates_of(bootstrap, base, lengths)
    residuals = base - rates.value * lengths
    by_theory = np.sqrt((residuals**2).sum()) / lengths.sum()
    assert bootstrap.standard_error(rates) == pytest.approx(by_theory, rel=0.05)
    assert PairedBootstrap.draw(["one"] * 400, replicates=9, seed=0).standard_error(rates) is None


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]


def speech_of(speakers, clips, spread, seed):
    """Errors and lengths of clips whose speakers differ, and the speakers."""
    rng = np.random.default_rng(seed)
    rate = np.clip(rng.normal(0.2, spread, speakers), 0.01, 0.9)
    lengths = rng.integers(3, 15, speakers * clips)
    return (
        rng.binomial(lengths, np.repeat(rate, clips)),
        lengths,
        [f"s{index // clips}" for index in range(len(lengths))],
    )


def test_speakers_are_drawn_wherever_they_are_known_and_the_design_effect_says_what_that_costs():
    errors, lengths, speakers = speech_of(40, 10, 0.15, seed=2)
    together, apart = (PairedBootstrap.of(Intervals(cluster=cluster), speakers) for cluster in ("speaker", "utterance"))
    assert Intervals().cluster == "speaker"
    assert (together.resampler.clusters, apart.resampler.clusters) == (40, 400)
    rates = rates_of(together, errors, lengths)
    effect = together.design_effect(rates)
    assert effect == pytest.approx(
        (together.standard_error(rates) / apart.standard_error(rates_of(apart, errors, lengths))) ** 2
    )
    assert effect > 2
    assert apart.design_effect(rates_of(apart, errors, lengths)) is None
    nobody = PairedBootstrap.of(Intervals(), [None] * 400)
    assert nobody.resampler.clusters == 400


def test_an_interval_says_where_it_is_not_to_be_relied_on():
    errors, lengths, speakers = speech_of(40, 10, 0.1, seed=2)

    def caution(names):
        bootstrap = PairedBootstrap.of(Intervals(), names)
        estimate = bootstrap.estimate(rates_of(bootstrap, errors[: len(names)], lengths[: len(names)]))
        assert estimate.low < estimate.high
        return estimate.caution

    assert caution(speakers) is None
    assert caution(speakers[:190]) == "few clusters"
    assert caution([None] * 19) == "few clusters"
    assert caution([None] * 20) is None
    assert caution(["one"] * 50) == "one speaker"


@pytest.mark.parametrize("clusters", [3, 5, 12])
def test_few_clusters_that_vary_leave_the_interval_an_end(clusters):
    """Most replicates of rare errors have a standard error of 0, which says nothing of the next corpus."""
    errors, lengths = np.zeros(clusters), np.full(clusters, 9)
    errors[0] = 2
    bootstrap = PairedBootstrap.draw([None] * clusters, replicates=1000, seed=0)
    estimate = bootstrap.estimate(rates_of(bootstrap, errors, lengths))
    assert 0 <= estimate.value < estimate.high < 5
