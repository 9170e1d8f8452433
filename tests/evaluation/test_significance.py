"""The paired bootstrap against slow loops, and against the truth on simulated speech."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.evaluation.significance import PairedBootstrap, Rates, correct, holm, two_sided_p
from shoal.schema import Delta, Estimate


def simulated(rng, utterances, rate, *, extra=0.0):
    """Errors of a baseline and of a worse system on the same utterances, and the reference lengths."""
    lengths = rng.integers(3, 20, utterances)
    difficulty = rng.beta(2, 2 / rate - 2, utterances)
    base = rng.binomial(lengths, difficulty)
    worse = base + rng.binomial(lengths, extra) if extra else base
    return base, worse, lengths


def slow_replicates(errors, other, lengths, clusters, replicates, seed):
    """Plain Python: draw clusters, add up their utterances, divide."""
    draw = random.Random(seed)
    members: dict[str, list[int]] = {}
    for place, cluster in enumerate(clusters):
        members.setdefault(cluster if cluster is not None else f"alone {place}", []).append(place)
    names = list(members)
    found = []
    for _ in range(replicates):
        a = b = words = 0
        for _ in names:
            for place in members[draw.choice(names)]:
                a += int(errors[place])
                b += int(other[place])
                words += int(lengths[place])
        found.append((a / words, b / words))
    return found


def percentiles(values):
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered))]


@pytest.mark.parametrize("by_speaker", [False, True])
def test_intervals_equal_those_of_plain_loops(by_speaker):
    rng = np.random.default_rng(1)
    base, worse, lengths = simulated(rng, 120, 0.2, extra=0.05)
    clusters = [f"s{place % 15}" for place in range(120)] if by_speaker else [None] * 120
    bootstrap = PairedBootstrap.draw(clusters, replicates=4000, seed=3)
    wer = bootstrap.rates(worse, lengths)
    estimate = bootstrap.estimate(wer)
    delta = bootstrap.delta(wer, bootstrap.rates(base, lengths))
    slow = slow_replicates(worse, base, lengths, clusters, 4000, seed=5)
    pairs = [
        (estimate, percentiles([a for a, _ in slow])),
        (delta.absolute, percentiles([a - b for a, b in slow])),
        (delta.relative, percentiles([(a - b) / b for a, b in slow])),
    ]
    for found, (low, high) in pairs:
        width = high - low
        assert found.low == pytest.approx(low, abs=0.08 * width)
        assert found.high == pytest.approx(high, abs=0.08 * width)
        assert found.low < found.value < found.high


def test_interval_covers_the_true_rate_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    corpora, covered, paired = 300, 0, 0
    for seed in range(corpora):
        base, worse, lengths = simulated(rng, 100, 0.2, extra=0.04)
        bootstrap = PairedBootstrap.draw([None] * 100, replicates=300, seed=seed)
        rates = bootstrap.rates(base, lengths)
        estimate = bootstrap.estimate(rates)
        change = bootstrap.delta(bootstrap.rates(worse, lengths), rates).absolute
        covered += estimate.low <= 0.2 <= estimate.high
        paired += change.low <= 0.04 <= change.high
    # Binomial spread over 300 corpora is 1.3 points; percentile intervals run a little short on small
    # corpora.
    assert 0.90 <= covered / corpora <= 0.98
    assert 0.90 <= paired / corpora <= 0.98


def test_p_value_is_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(4)
    found = []
    for seed in range(200):
        lengths = np.full(80, 10)
        a, b = rng.binomial(10, 0.2, 80), rng.binomial(10, 0.2, 80)
        bootstrap = PairedBootstrap.draw([None] * 80, replicates=300, seed=seed)
        found.append(bootstrap.delta(bootstrap.rates(a, lengths), bootstrap.rates(b, lengths)).p_value)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.11
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    base, worse, lengths = simulated(rng, 200, 0.2, extra=0.1)
    bootstrap = PairedBootstrap.draw([None] * 200, replicates=1000, seed=0)
    change = bootstrap.delta(bootstrap.rates(worse, lengths), bootstrap.rates(base, lengths))
    assert change.p_value == pytest.approx(2 / 1001)


def test_equal_systems_have_no_difference_and_p_one():
    base, _, lengths = simulated(np.random.default_rng(2), 50, 0.3)
    bootstrap = PairedBootstrap.draw([None] * 50, replicates=200, seed=0)
    rates = bootstrap.rates(base, lengths)
    delta = bootstrap.delta(rates, rates)
    assert (delta.absolute.value, delta.absolute.low, delta.absolute.high) == (0, 0, 0)
    assert delta.p_value == 1


def test_the_seed_decides_the_draw():
    base, _, lengths = simulated(np.random.default_rng(2), 50, 0.3)
    draws = [
        PairedBootstrap.draw([None] * 50, replicates=100, seed=seed).rates(base, lengths).replicates
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_one_cluster_gives_a_value_without_an_interval():
    bootstrap = PairedBootstrap.draw(["same", "same"], replicates=100, seed=0)
    rates = bootstrap.rates(np.array([1, 0]), np.array([4, 4]))
    estimate, delta = bootstrap.estimate(rates), bootstrap.delta(rates, rates)
    assert (estimate.value, estimate.low, estimate.high) == (0.125, None, None)
    assert delta.p_value is None


def test_a_perfect_baseline_has_no_relative_difference():
    bootstrap = PairedBootstrap.draw([None] * 3, replicates=100, seed=0)
    lengths = np.array([4, 4, 4])
    perfect, other = (bootstrap.rates(np.array(errors), lengths) for errors in ([0, 0, 0], [1, 0, 2]))
    assert bootstrap.delta(other, perfect).relative is None


def test_a_baseline_that_is_perfect_in_some_draws_leaves_the_relative_interval_open():
    bootstrap = PairedBootstrap.draw([None] * 4, replicates=500, seed=0)
    lengths = np.array([4, 4, 4, 4])
    nearly, other = (bootstrap.rates(np.array(errors), lengths) for errors in ([1, 0, 0, 0], [1, 1, 1, 1]))
    relative = bootstrap.delta(other, nearly).relative
    assert relative.value == 3
    assert (relative.low, relative.high) == (None, None)


def test_draws_without_a_reference_word_are_left_out():
    bootstrap = PairedBootstrap.draw([None] * 2, replicates=200, seed=0)
    rates = bootstrap.rates(np.array([1, 1]), np.array([0, 4]))
    assert np.isnan(rates.replicates).any()
    assert bootstrap.estimate(rates).high is not None


def test_no_reference_word_at_all_is_refused():
    bootstrap = PairedBootstrap.draw([None], replicates=10, seed=0)
    with pytest.raises(ValueError, match="reference"):
        bootstrap.rates(np.array([1]), np.array([0]))


def test_two_sided_p_counts_the_smaller_side():
    assert two_sided_p(np.array([-1.0, 1, 1, 1, 1, 1, 1, 1, 1])) == pytest.approx(2 * 2 / 10)
    assert two_sided_p(np.array([np.nan, 0.0, 0.0])) == 1
    assert isinstance(Rates(0.1, np.zeros(2)).value, float)


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
    rates = bootstrap.rates(base, lengths)
    residuals = base - rates.value * lengths
    by_theory = np.sqrt((residuals**2).sum()) / lengths.sum()
    assert bootstrap.standard_error(rates) == pytest.approx(by_theory, rel=0.05)
    assert PairedBootstrap.draw(["one"] * 400, replicates=9, seed=0).standard_error(rates) is None


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]
