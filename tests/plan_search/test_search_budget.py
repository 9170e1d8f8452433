"""The bound and the test against plain loops, and budgets that make no sense."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from shoal.errors import UsageError
from shoal.evaluation.paired_scores import score_rates, worsening
from shoal.evaluation.scores.errors import Wer
from shoal.evaluation.scores.labels import Accuracy
from shoal.evaluation.significance import PairedBootstrap
from shoal.plan_search.budget import (
    Costs,
    RelativeChange,
    check_costs,
    check_layers_must_go,
    check_replicates,
    confirmed,
    megabytes,
    with_usual_increase,
)
from shoal.plan_search.settings import SearchSettings
from shoal.schema import Budget, ModelInfo
from shoal.statistics import make_resampler

WORDS, REPLICATES = 10, 4000


def paired_change(score, system, full, resampler):
    """From statistics of both: the relative change for the worse, and its replicates."""
    bootstrap = PairedBootstrap(resampler)
    change = worsening(score, *(score_rates(score, table, bootstrap) for table in (system, full)))
    return change.value, change.replicates


def simulated(clips=80):
    """Statistics (U, 4) of a model with about 20 % errors, and of a plan with about 26 %."""
    draw = np.random.default_rng(1)
    full = draw.binomial(WORDS, 0.2, clips)
    worse = np.minimum(full + draw.binomial(WORDS, 0.06, clips), WORDS)
    return tuple(
        np.stack([WORDS - errors, errors, 0 * errors, 0 * errors], axis=1).astype(float) for errors in (worse, full)
    )


def slow_changes(worse, full, seed=9):
    """Draw clips one by one, add up errors, divide."""
    draw, found = random.Random(seed), []
    for _ in range(REPLICATES):
        places = [draw.randrange(len(full)) for _ in full]
        found.append(sum(worse[p][1] for p in places) / sum(full[p][1] for p in places) - 1)
    return sorted(found)


def test_bound_and_p_value_are_those_of_plain_loops():
    worse, full = simulated()
    resampler = make_resampler([None] * len(full), replicates=REPLICATES, seed=3)
    change = RelativeChange.of(*paired_change(Wer(), worse, full, resampler), resampler.clusters)
    slow = slow_changes(worse.tolist(), full.tolist())
    spread = slow[int(0.95 * REPLICATES)] - slow[int(0.05 * REPLICATES)]
    assert change.value == pytest.approx(worse[:, 1].sum() / full[:, 1].sum() - 1)
    for confidence in (0.8, 0.95):
        bound = slow[int(confidence * REPLICATES)]
        assert change.bound(confidence) == pytest.approx(bound, abs=0.08 * spread)
    for limit in (change.value, change.value + 0.3 * spread):
        p_value = (1 + sum(value >= limit for value in slow)) / (REPLICATES + 1)
        assert change.p_value(limit) == pytest.approx(p_value, abs=0.03)


def test_a_plan_at_the_limit_is_confirmed_about_as_rarely_as_the_confidence_says():
    draw, corpora, passed = np.random.default_rng(0), 300, 0
    for seed in range(corpora):
        rate = draw.beta(2, 8, 50)
        errors = draw.binomial(WORDS, rate)
        more = errors + draw.binomial(WORDS, 0.05, 50)  # a quarter more than the mean rate of 0.2
        worse, full = (np.stack([WORDS - e, e, 0 * e, 0 * e], axis=1).astype(float) for e in (more, errors))
        resampler = make_resampler([None] * 50, replicates=199, seed=seed)
        passed += RelativeChange.of(*paired_change(Wer(), worse, full, resampler), 50).p_value(0.25) <= 0.05
    # Binomial spread over 300 corpora is 1.3 points.
    assert 0.01 <= passed / corpora <= 0.1


def test_the_bound_holds_where_the_test_does():
    worse, full = simulated()
    resampler = make_resampler([None] * len(full), replicates=999, seed=3)
    change = RelativeChange.of(*paired_change(Wer(), worse, full, resampler), resampler.clusters)
    for limit in np.linspace(0, 1, 101):
        held = change.within(Budget(max_increase=limit))
        assert held == (change.p_value(limit) <= 0.05) or change.bound(0.95) == pytest.approx(limit, abs=0.01)


def test_a_fall_of_a_score_is_an_increase():
    full, plan = np.array([[1.0, 1]] * 4), np.array([[1.0, 1], [1, 1], [1, 1], [0, 1]])
    resampler = make_resampler([None] * 4, replicates=50, seed=0)
    assert RelativeChange.of(*paired_change(Accuracy(), plan, full, resampler), 4).value == pytest.approx(0.25)


def test_the_value_may_decide_alone():
    change = RelativeChange(0.2, np.array([0.1, 0.2, 0.4]))
    assert change.within(Budget(max_increase=0.25, point=True))
    assert not change.within(Budget(max_increase=0.25))
    assert change.within(Budget(max_increase=0.4))
    assert change.within(Budget(max_layers=3))


def test_an_interval_has_both_one_sided_bounds():
    found = RelativeChange(0.0, np.linspace(-1, 1, 201)).estimate(0.95)
    assert (found.low, found.high) == pytest.approx((-0.9, 0.9))
    assert found.level == pytest.approx(0.9)


def test_a_draw_without_a_baseline_error_counts_as_broken():
    drawn = np.array([0.0] * 8 + [math.inf, math.nan])
    change = RelativeChange.of(0.0, drawn, clusters=9)
    assert not change.within(Budget(max_increase=9.0))
    assert change.p_value(9.0) == pytest.approx(3 / 11)
    assert (change.estimate(0.95).low, change.estimate(0.95).high) == (None, None)
    assert change.within(Budget(max_increase=9.0, confidence=0.75))


def test_one_cluster_says_nothing_about_how_sure_a_change_is():
    change = RelativeChange.of(0.1, np.array([0.1, 0.1]), clusters=1)
    assert change.bound(0.95) is None
    assert change.p_value(0.5) is None
    assert not change.within(Budget(max_increase=0.5))
    assert change.within(Budget(max_increase=0.5, point=True))


def test_a_confirmation_needs_the_corrected_p_value():
    change = RelativeChange(0.9, np.array([0.9]))
    assert confirmed(Budget(max_increase=1.0), change, 0.05)
    assert confirmed(Budget(max_increase=1.0, confidence=0.9), change, 0.1)
    assert not confirmed(Budget(max_increase=1.0), change, 0.051)
    assert not confirmed(Budget(max_increase=0.5, point=True), change, 0.001)
    assert confirmed(Budget(max_layers=2), change, 1.0)


@pytest.mark.parametrize(("task", "usual"), [("asr", 0.25), ("ast", 0.1), ("ser", 0.1)])
def test_what_is_usual_is_taken_only_if_nothing_else_is_bounded(task, usual):
    assert with_usual_increase(SearchSettings().budget, task).max_increase == usual
    assert with_usual_increase(SearchSettings(max_increase=0.5).budget, task).max_increase == 0.5
    assert with_usual_increase(SearchSettings(max_layers=3).budget, task).max_increase is None


def info(*layers, other=1000):
    return ModelInfo(
        ref="m",
        kind="speech_llm",
        class_name="M",
        family="f",
        depth=len(layers),
        hidden_size=8,
        decoder_layer_parameters=list(layers),
        total_parameters=sum(layers) + other,
    )


def test_megabytes_are_what_is_left():
    assert megabytes(info(500_000, 250_000, other=1_000_000), [0], 2) == 2.5


def test_costs_within_their_bounds():
    costs = Costs(layers=5, megabytes=10.0, milliseconds=None)
    assert costs.within(Budget(max_layers=5, max_megabytes=10.0))
    assert not costs.within(Budget(max_layers=4))
    assert not costs.within(Budget(max_megabytes=9.9))
    assert not costs.within(Budget(max_milliseconds=1.0))
    timed = Costs(layers=5, milliseconds=9.0, milliseconds_bound=11.0)
    assert not timed.within(Budget(max_milliseconds=10.0))
    assert timed.within(Budget(max_milliseconds=10.0, point=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_increase": -0.1}, "--max-increase"),
        ({"max_increase": math.nan}, "--max-increase"),
        ({"confidence": 0.0}, "--point"),
        ({"confidence": 1.0}, "--confidence"),
        ({"max_layers": 0}, "--max-layers"),
        ({"max_milliseconds": math.inf}, "--max-ms"),
        ({"max_megabytes": -1.0}, "--max-mb"),
    ],
)
def test_bounds_that_mean_nothing_are_one_line(wrong, said):
    with pytest.raises(UsageError, match=said) as caught:
        SearchSettings.of(None, wrong)
    assert "\n" not in str(caught.value)


def check(budget, *, whole=True, model=None):
    model = model or info(100, 200, 300)
    check_costs(budget, model, 4, whole=whole, removable=range(model.depth - 1))


def test_costs_that_cannot_be_reached_are_refused():
    check(Budget(max_layers=1))
    check(Budget(max_megabytes=0.0053))
    with pytest.raises(UsageError, match="--max-mb"):
        check(Budget(max_megabytes=0.0051))
    with pytest.raises(UsageError, match="only a part"):
        check(Budget(max_layers=2), whole=False)


def test_costs_that_the_unpruned_model_keeps_to_are_refused_if_nothing_else_is_asked():
    with pytest.raises(UsageError, match="already"):
        check(Budget(max_layers=3))
    check(Budget(max_layers=3, max_increase=0.1))
    check(Budget(max_layers=3, max_milliseconds=1.0))
    with pytest.raises(UsageError, match="already"):
        check_layers_must_go(Budget(max_milliseconds=1.0), Costs(3, None, 0.8, 0.9))


def test_too_few_replicates_for_any_test_to_be_passed_are_refused():
    check_replicates(Budget(max_increase=0.1), 59, 3)
    check_replicates(Budget(max_increase=0.1, confidence=0.9), 29, 3)
    with pytest.raises(UsageError, match="59"):
        check_replicates(Budget(max_increase=0.1), 58, 3)
    check_replicates(Budget(max_increase=0.1, point=True), 10, 3)
