"""What plans cost, and budgets that make no sense."""

from __future__ import annotations

import math

import pytest

from shoal.errors import UsageError
from shoal.plan_search.budget import (
    Costs,
    check_costs,
    check_layers_must_go,
    check_replicates,
    megabytes,
    with_usual_increase,
)
from shoal.plan_search.settings import SearchSettings
from shoal.schema import Budget, ModelInfo


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


def test_too_few_replicates_for_a_bound_are_refused():
    check_replicates(Budget(max_increase=0.1), 19)
    check_replicates(Budget(max_increase=0.1, confidence=0.9), 9)
    with pytest.raises(UsageError, match="give 19 or more"):
        check_replicates(Budget(max_increase=0.1), 18)
    check_replicates(Budget(max_increase=0.1, point=True), 10)
