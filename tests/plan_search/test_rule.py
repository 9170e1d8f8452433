"""The rule on numbers alone: bounds and tests against plain loops, the fixed sequence, and simulated searches."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from shoal.evaluation.scores.errors import CompoundWer
from shoal.evaluation.scores.labels import Accuracy
from shoal.evaluation.significance import PairedBootstrap
from shoal.plan_search.relative_change import RelativeChange
from shoal.plan_search.rule import Verdict, chosen, confirm_in_sequence, held_on_validation
from shoal.schema import Budget

BUDGET = Budget(max_increase=0.25)
LOOP = 36
"""Words that a looping answer has; references have 9 on average."""


def corpus(clips, seed, *, more=0.0, loops=0.0, redone=0.3):
    """Errors and words (U, 2) of a plan and of a model with 20 % errors.

    Args:
        more: share of usual errors that the plan adds.
        loops: share of clips on which it loops.
        redone: share of clips on which it errs anew.
    """
    draw = np.random.default_rng(seed)
    words = 1 + draw.poisson(8, clips)
    rates = draw.beta(0.8, 3.2, clips)
    full = draw.binomial(words, rates).astype(float)
    plan = np.where(draw.random(clips) < redone, draw.binomial(words, rates), full) + draw.binomial(words, 0.2 * more)
    plan = np.where(draw.random(clips) < loops, LOOP, plan)
    return np.stack([plan, words], axis=1), np.stack([full, words], axis=1)


def change_of(plan, full, *, seed=0, speakers=None, score=None, replicates=200):
    bootstrap = PairedBootstrap.draw(speakers or [None] * len(plan), replicates=replicates, seed=seed)
    return RelativeChange.of(score or CompoundWer(), plan, full, bootstrap, LOOP / 9)


def slow_changes(plan, full, unseen, draws=2000):
    """Weigh every clip by an exponential number, add up errors, divide."""
    draw, changes = random.Random(3), []
    words, errors = full[:, 1].mean(), full[:, 0].mean()
    clips = list(zip(plan[:, 0].tolist(), full[:, 0].tolist(), strict=True))
    for _ in range(draws):
        weights = [draw.expovariate(1) for _ in clips]
        extra = draw.expovariate(1) if unseen else 0.0
        worse = sum(w * clip[0] for w, clip in zip(weights, clips, strict=True)) + extra * 4 * words
        base = sum(w * clip[1] for w, clip in zip(weights, clips, strict=True)) + extra * errors
        changes.append(worse / base - 1)
    return changes


@pytest.mark.parametrize("unseen", [True, False])
def test_the_p_value_is_that_of_plain_loops(unseen):
    plan, full = corpus(60, 1)
    change, slow = change_of(plan, full), slow_changes(plan, full, unseen)
    assert change.value == pytest.approx(plan[:, 0].sum() / full[:, 0].sum() - 1)
    for limit in (0.1, 0.3, 0.7):
        p_value = sum(value >= limit for value in slow) / len(slow)
        assert change.p_value(limit, unseen=unseen) == pytest.approx(p_value, abs=0.03)


def test_the_bound_on_the_validation_split_is_studentised():
    plan, full = corpus(40, 2)
    change = change_of(plan, full, replicates=1000)
    bounds = change.resampled.bounds(change.bootstrap.resampler, 0.9)
    assert (change.estimate(0.95).low, change.estimate(0.95).high) == bounds
    for limit in (bounds[1] - 0.001, bounds[1] + 0.001):
        assert held_on_validation(change, Budget(max_increase=max(limit, 0))) == (limit > bounds[1])
    assert held_on_validation(change, Budget(max_increase=change.value, point=True))
    assert held_on_validation(change, Budget(max_layers=3))


def test_a_fall_of_a_score_is_an_increase():
    full, plan = np.array([[1.0, 1]] * 4), np.array([[1.0, 1], [1, 1], [1, 1], [0, 1]])
    assert change_of(plan, full, score=Accuracy()).value == pytest.approx(0.25)


def test_an_unpruned_model_without_errors_shows_nothing():
    _, full = corpus(30, 0)
    change = change_of(full, full * [0, 1])
    assert not held_on_validation(change, Budget(max_increase=9.0))
    assert change.upper(0.95) is None
    assert change.p_value(9.0, unseen=False) == 1
    assert change.clips_needed(9.0, 0.95) is None


def test_one_cluster_says_nothing_about_how_sure_a_change_is():
    plan, full = corpus(10, 0)
    change = change_of(plan, full, speakers=["a"] * 10)
    assert change.p_value(0.5, unseen=True) is None
    assert change.clips_needed(9.0, 0.95) is None
    assert not held_on_validation(change, Budget(max_increase=9.0))
    assert held_on_validation(change, Budget(max_increase=9.0, point=True))


def sequence(*changes, clusters=500, budget=BUDGET):
    taken = []
    verdicts = confirm_in_sequence((taken.append(c) or c for c in changes), budget, 0.25, clusters)
    assert len(verdicts) == len(taken)
    return verdicts


@pytest.fixture(scope="module")
def kinds():
    """A plan that is confirmed, one that holds on what was seen, and one that breaks the budget."""
    full = corpus(400, 3)[1]
    return [change_of(p, f) for p, f in ((full, full), corpus(400, 3, more=0.15), corpus(400, 3, more=0.4))]


def test_the_sequence_ends_at_the_first_that_fails(kinds):
    good, doubtful, bad = kinds
    outcomes = [(v.holds, v.confirmed) for v in sequence(good, doubtful, good, bad, good)]
    # Behind one that is not confirmed none is, whatever it is worth by itself.
    assert outcomes == [(True, True), (True, False), (True, False), (False, False)]
    assert sequence(bad, good)[0].p_seen > 0.05
    assert len(sequence(bad, good)) == 1


def test_nothing_is_confirmed_with_fewer_than_20_clusters(kinds):
    good = kinds[0]
    assert [sequence(good, clusters=count)[0].confirmed for count in (19, 20)] == [False, True]
    full = corpus(600, 4)[1]
    for speakers in (19, 20):
        change = change_of(full, full, speakers=[f"s{clip % speakers}" for clip in range(600)])
        (verdict,) = sequence(change)
        assert (verdict.holds, verdict.confirmed) == (True, speakers == 20)


def test_where_no_test_is_asked_for_nothing_is_confirmed(kinds):
    good, _, bad = kinds
    (by_value,) = sequence(good, budget=Budget(max_increase=0.25, point=True))
    (by_costs,) = sequence(bad, budget=Budget(max_layers=3))
    assert (by_value.holds, by_value.confirmed) == (by_costs.holds, by_costs.confirmed) == (True, False)
    assert by_costs.p_value > 0.05


def test_the_deepest_that_is_confirmed_is_chosen_else_the_deepest_that_holds():
    confirmed, holds, fails = (Verdict(0.0, 0.0, *outcome) for outcome in ((True, True), (True, False), (False, False)))
    assert chosen([confirmed, confirmed, holds, fails]) == 1
    assert chosen([holds, holds, fails]) == 1
    assert chosen([fails]) is None
    assert chosen([]) is None


@pytest.mark.parametrize("kind", [{"more": 0.25}, {"loops": 0.0132}, {"more": 0.125, "loops": 0.0066}])
@pytest.mark.parametrize("clips", [30, 300])
def test_a_plan_at_the_limit_is_confirmed_in_at_most_6_percent_of_searches(kind, clips):
    searches, confirmed, held = 60, 0, 0
    for seed in range(searches):
        validation, confirmation = (change_of(*corpus(clips, (seed, split), **kind), seed=seed) for split in (0, 1))
        if held_on_validation(validation, BUDGET):
            (verdict,) = sequence(confirmation, clusters=clips)
            held, confirmed = held + verdict.holds, confirmed + verdict.confirmed
    assert confirmed / searches <= 0.06
    if kind == {"loops": 0.0132} and clips == 30:
        assert held / searches > 0.1  # what the clips seen cannot tell


def test_as_many_clips_as_are_needed_confirm_with_a_power_of_80_percent():
    needed = np.median([change_of(*corpus(300, (9, seed))).clips_needed(0.25, 0.95) for seed in range(20)])
    # What has that power is within 30 % of it.
    few, many = (
        [change_of(*corpus(int(share * needed), seed)).p_value(0.25, unseen=True) <= 0.05 for seed in range(20)]
        for share in (0.75, 1.25)
    )
    assert np.mean(few) < 0.8 < np.mean(many)


def test_more_clips_are_needed_the_nearer_the_limit():
    plan, full = corpus(300, 5)
    change = change_of(plan, full)
    needed = [change.clips_needed(change.value + margin, 0.95) for margin in (0.5, 0.25, 0.1)]
    assert needed == sorted(needed)
    assert change.clips_needed(change.value, 0.95) is None
    assert change.clips_needed(change.value + 1e-6, 0.95) is None
    # Ten clips a speaker that are alike are worth one: as many speakers are needed.
    ten = change_of(np.repeat(plan, 10, 0), np.repeat(full, 10, 0), speakers=[f"s{i // 10}" for i in range(3000)])
    alone = math.ceil(change_of(plan, full).clips_needed(0.5, 0.95))
    assert alone < ten.clips_needed(0.5, 0.95) < 10 * alone
