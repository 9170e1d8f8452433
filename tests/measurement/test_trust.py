"""Which metric predicts the truth: every number against its definition, in loops over utterances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metrics import metric_slices
from shoal.measurement.sums import Sums, units_of
from shoal.measurement.trust import trust_of
from shoal.schema import SCOPES, Estimate, MetricTrust, Trust
from shoal.statistics import make_resampler
from synthetic_audits import DEPTH, random_importance, random_sums, slow_spearman

LEVEL, REPLICATES = 0.9, 40


def slow_importance(item: ImportanceSums, layers: tuple[int, ...], weight: dict[str, float]) -> float:
    """Ratio of two weighted sums over the utterances that this candidate was measured on."""
    if layers not in item.candidates:
        return sum(slow_importance(item, (layer,), weight) for layer in layers)
    place = item.candidates.index(layers)
    lost = tokens = 0.0
    for row, name in enumerate(item.utterances):
        if not np.isnan(item.values[row, place]):
            lost += weight[name] * float(item.values[row, place])
            tokens += weight[name] * int(item.counts[row])
    return lost / tokens


def slow_cosine(sums: Sums, metric: str, scope: str, layers: tuple[int, ...], weight: dict[str, float]) -> float:
    """Of a block by its place in the triangle; influence by the sum of its layers."""
    first = metric_slices(DEPTH)[metric].start
    before = sum(DEPTH - n + 1 for n in range(1, len(layers)))
    columns = [first + before + layers[0]] if metric == "angular" else [first + layer for layer in layers]
    total = positions = 0.0
    for row, name in enumerate(sums.utterances):
        for column in columns:
            total += weight[name] * float(sums.values[row, SCOPES.index(scope), column])
        positions += weight[name] * int(sums.counts[row, SCOPES.index(scope)])
    return total / positions


def slow_rows(sums, cluster, value, candidates) -> list[list[float]]:
    """`value(layers, weights)` of each candidate: in the full sample, then in each replicate."""
    resampler = make_resampler(units_of(sums, cluster).clusters, replicates=REPLICATES, seed=3)
    drawn = [
        {name: float(weights[resampler.groups[row]]) for row, name in enumerate(sums.utterances)}
        for weights in resampler.weights
    ]
    full = dict.fromkeys(sums.utterances, 1.0)
    return [[value(layers, weight) for layers in candidates] for weight in [full, *drawn]]


def slow_regret(guess: list[float], real: list[float], k: int) -> float:
    first = sorted(range(len(guess)), key=lambda place: guess[place])[:k]
    return min(real[place] for place in first) - min(real)


def assert_estimate(found: Estimate, rows: list[float]) -> None:
    assert found.value == pytest.approx(rows[0])
    low, high = np.quantile(rows[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def trust(sums, importance, **more) -> list[Trust]:
    clusters = units_of(sums, more.get("cluster", "utterance")).clusters
    return trust_of(sums, importance, make_resampler(clusters, replicates=REPLICATES, seed=3), LEVEL)


def row(found: Trust, metric: str, scope: str, n: int) -> MetricTrust:
    (one,) = [m for m in found.metrics if (m.metric, m.scope, m.n) == (metric, scope, n)]
    return one


@pytest.fixture(scope="module")
def measured() -> tuple[Sums, list[ImportanceSums]]:
    """The importance of some utterances only, in another order; a gradient of single layers."""
    sums = random_sums(1)
    some = [sums.utterances[place] for place in (5, 0, 7, 2, 3, 6)]
    loss, kl = random_importance(2, some), random_importance(3, some, quantity="kl")
    gradient = random_importance(4, some, sizes=(1,), metric="gradient", quantity="absolute")
    return sums, [loss, kl, gradient]


@pytest.mark.parametrize("cluster", ["utterance", "speaker"])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("metric", "scope"),
    [("angular", "all"), ("influence", "last"), ("ablation kl", "response"), ("gradient absolute", "response")],
)
def test_every_number_is_what_it_is_defined_to_be(measured, metric, scope, n, cluster):
    sums, (loss, kl, gradient) = measured
    candidates = [layers for layers in loss.candidates if len(layers) == n]
    item = {"ablation kl": kl, "gradient absolute": gradient}.get(metric)

    def value(layers, weight):
        if item is None:
            return slow_cosine(sums, metric, scope, layers, weight)
        return slow_importance(item, layers, weight)

    guess = slow_rows(sums, cluster, value, candidates)
    real = slow_rows(sums, cluster, lambda *given: slow_importance(loss, *given), candidates)
    pairs = list(zip(guess, real, strict=True))
    found = row(trust(sums, [loss, kl, gradient], cluster=cluster)[0], metric, scope, n)
    assert found.candidates == len(candidates)
    assert found.picked == candidates[guess[0].index(min(guess[0]))][0]
    assert found.best == candidates[real[0].index(min(real[0]))][0]
    assert_estimate(found.spearman, [slow_spearman(*pair) for pair in pairs])
    assert_estimate(found.regret, [slow_regret(*pair, 1) for pair in pairs])
    assert_estimate(found.top_k_regret, [slow_regret(*pair, 3) for pair in pairs])


def test_each_quantity_of_ablation_is_a_truth_and_predicts_the_others_but_not_itself(measured):
    sums, importance = measured
    loss, kl = trust(sums, importance)
    assert (loss.truth, kl.truth, loss.unit) == ("ablation loss", "ablation kl", "nats a token")
    predictors = {m.metric for m in loss.metrics}
    assert predictors == {"angular", "influence", "ablation kl", "gradient absolute"}
    assert "ablation loss" in {m.metric for m in kl.metrics}


def test_metrics_come_by_size_and_then_by_regret(measured):
    for found in trust(*measured):
        order = [(m.n, m.regret.value) for m in found.metrics]
        assert order == sorted(order)
        assert {m.n for m in found.metrics} == {1, 2}
        assert "audio" not in {m.scope for m in found.metrics}


def test_a_metric_that_knows_the_truth_has_no_regret():
    sums = random_sums(1)
    loss = random_importance(2, sums.utterances)
    found = row(trust(sums, [loss, replace(loss, quantity="kl")])[0], "ablation kl", "response", 2)
    assert (found.spearman.value, found.regret.value, found.regret.high) == (1, 0, 0)
    assert found.picked == found.best


def test_blocks_that_a_race_dropped_are_no_truth():
    """Their means are over clips of their own: a few easy ones would make a bad block the best."""
    sums = random_sums(1)
    loss = random_importance(2, sums.utterances, sizes=(1,))
    loss.values[4:, 4] = np.nan
    found = row(trust(sums, [loss])[0], "angular", "all", 1)
    assert found.candidates == 4
    assert 4 not in (found.best, found.picked)
    loss.values[4:, 3] = np.nan
    assert trust(sums, [loss]) == []


def test_a_refused_block_is_neither_chosen_nor_best():
    sums = random_sums(1)
    loss = random_importance(2, sums.utterances, sizes=(1,))
    best = row(trust(sums, [loss])[0], "angular", "all", 1).best
    found = row(trust(sums, [replace(loss, refused={best: "not finite"})])[0], "angular", "all", 1)
    assert found.candidates == 4
    assert best not in (found.best, found.picked)


def test_parts_of_layers_are_no_truth(measured):
    sums, (loss, *_) = measured
    assert trust(sums, [replace(loss, part="attention")]) == []


def test_one_utterance_has_no_interval():
    sums = random_sums(1, utterances=1)
    found = trust(sums, [random_importance(2, sums.utterances)])[0].metrics[0]
    assert found.regret.low is None
    assert found.spearman.high is None
