"""Greedy and beam paths against brute force and by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.plan_search.paths import beam


class Synthetic:
    """Single costs and pair costs: what two layers do together is more than their sum."""

    def __init__(self, depth, seed, refused=()):
        random = np.random.default_rng(seed)
        self.single, self.pair = random.uniform(0, 1, depth), random.uniform(-1, 1, (depth, depth))
        self.refused, self.asked = set(refused), []

    def cost(self, layers):
        return sum(self.single[a] for a in layers) + sum(self.pair[a, b] for a, b in combinations(layers, 2))

    def __call__(self, candidates):
        self.asked += candidates
        return np.array([np.nan if self.refused & set(each) else self.cost(each) for each in candidates])


def by_hand(table):
    return lambda candidates: np.array([table.get(each, 9.0) for each in candidates])


def test_greedy_measures_again_without_what_went():
    """Alone layers 0 and 1 are the least harmful, but they stand in for each other."""
    table = {(0,): 0.1, (1,): 0.2, (2,): 0.3, (0, 1): 2.0, (0, 2): 0.5, (1, 2): 0.4, (0, 1, 2): 3.0}
    found = list(beam(by_hand(table), range(3), 3, width=1))
    assert found == [((0,), 0.1), ((0, 2), 0.5), ((0, 1, 2), 3.0)]


def test_a_wider_beam_finds_what_greedy_misses():
    table = {(0,): 0.1, (1,): 0.2, (2,): 0.3, (0, 1): 2.0, (0, 2): 0.5, (1, 2): 0.4, (0, 1, 2): 3.0}
    found = list(beam(by_hand(table), range(3), 3, width=2))
    assert found == [((0,), 0.1), ((1, 2), 0.4), ((0, 1, 2), 3.0)]


def test_of_equals_the_earlier_layer_goes():
    found = list(beam(lambda candidates: np.zeros(len(candidates)), range(4), 2, width=1))
    assert [layers for layers, _ in found] == [(0,), (0, 1)]


@given(depth=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_beam_as_wide_as_all_sets_finds_the_optimum(depth, seed):
    measure = Synthetic(depth, seed)
    for layers, value in beam(measure, range(depth), depth, width=2**depth):
        best = min(combinations(range(depth), len(layers)), key=measure.cost)
        assert layers == best
        assert value == pytest.approx(measure.cost(best))


@given(depth=st.integers(2, 7), seed=st.integers(0, 99), width=st.integers(1, 4))
def test_each_set_is_measured_once(depth, seed, width):
    measure = Synthetic(depth, seed)
    list(beam(measure, range(depth), depth, width=width))
    assert len(measure.asked) == len(set(measure.asked))


@given(depth=st.integers(2, 7), seed=st.integers(0, 99), width=st.integers(1, 4), data=st.data())
def test_what_has_no_value_is_never_chosen(depth, seed, width, data):
    refused = data.draw(st.sets(st.integers(0, depth - 1)))
    found = list(beam(Synthetic(depth, seed, refused), range(depth), depth, width=width))
    assert len(found) == depth - len(refused)
    assert not any(refused & set(layers) for layers, _ in found)


def test_nothing_is_measured_for_depths_that_nobody_asks_for():
    measure = Synthetic(8, 0)
    path = beam(measure, range(8), 7, width=1)
    next(path)
    assert measure.asked == [(layer,) for layer in range(8)]
