"""Which metric predicts the truth: every number against its definition, in loops over utterances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metrics import metric_slices
from shoal.measurement.sums import Sums, units_of
from shoal.measurement.trust import trust_of
from shoal.schema import SCOPES, MetricTrust, Trust
from shoal.statistics import halves_of, make_resampler
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


def split(sums: Sums, item: ImportanceSums, cluster: str) -> list[dict[str, str]]:
    """Of each random half: utterance → its cluster."""
    resampler = make_resampler(units_of(sums, cluster).clusters, replicates=REPLICATES, seed=3)
    measured = np.array([any(resampler.groups[sums.utterances.index(name)] == k for name in item.utterances)
                         for k in range(resampler.clusters)])  # fmt: skip
    halves = halves_of(resampler, measured)
    return [
        {name: int(group) for name, group in zip(sums.utterances, halves.groups, strict=True) if row[group]}
        for row in halves.weights
    ]


def slow_rows(sums, halves, value, candidates) -> list[list[float]]:
    """`value(layers, weights)` of each candidate: in the full sample, then in each half."""
    weights = [{name: float(name in half) for name in sums.utterances} for half in halves]
    full = dict.fromkeys(sums.utterances, 1.0)
    return [[value(layers, weight) for layers in candidates] for weight in [full, *weights]]


def slow_choice(guess: list[float], real: list[float], k: int) -> int:
    first = sorted(range(len(guess)), key=lambda place: guess[place])[:k]
    return min(first, key=lambda place: real[place])


def slow_held_out(item: ImportanceSums, halves, pairs) -> tuple[float, float, float]:
    """Mean over halves of the difference of two candidates on the other half, and its interval at LEVEL."""
    row_of = {name: row for row, name in enumerate(item.utterances)}
    means, variances = [], []
    for k, (chosen, best) in enumerate(pairs):
        lost, tokens = {}, {}
        for name, cluster in halves[k ^ 1].items():
            if name in row_of:
                values = item.values[row_of[name]]
                difference = values[item.candidates.index(chosen)] - values[item.candidates.index(best)]
                lost[cluster] = lost.get(cluster, 0.0) + float(difference)
                tokens[cluster] = tokens.get(cluster, 0) + int(item.counts[row_of[name]])
        mean = sum(lost.values()) / sum(tokens.values())
        squares = sum(((lost[c] - mean * tokens[c]) / sum(tokens.values())) ** 2 for c in lost)
        means.append(mean)
        variances.append(squares * len(lost) / (len(lost) - 1) if len(lost) > 1 else np.nan)
    clusters = len({c for half in halves for name, c in half.items() if name in row_of})
    reach = student.ppf((1 + LEVEL) / 2, clusters - 2) * (sum(variances) / len(variances) / 2) ** 0.5
    return sum(means) / len(means), reach, clusters


def slow_between(x: list[list[float]], y: list[list[float]]) -> float:
    return sum(slow_spearman(x[k], y[k ^ 1]) for k in range(len(x))) / len(x)


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

    halves = split(sums, loss, cluster)
    guess = slow_rows(sums, halves, value, candidates)
    real = slow_rows(sums, halves, lambda *given: slow_importance(loss, *given), candidates)
    found = row(trust(sums, [loss, kl, gradient], cluster=cluster)[0], metric, scope, n)
    assert found.candidates == len(candidates)
    assert found.picked == candidates[guess[0].index(min(guess[0]))][0]
    assert found.best == candidates[real[0].index(min(real[0]))][0]
    for estimate, k in ((found.regret, 1), (found.top_k_regret, 3)):
        choices = [(slow_choice(g, r, k), r.index(min(r))) for g, r in zip(guess[1:], real[1:], strict=True)]
        value, reach, _ = slow_held_out(loss, halves, [(candidates[p], candidates[q]) for p, q in choices])
        assert estimate.value == pytest.approx(value)
        assert (estimate.low is None) == np.isnan(reach)
        if estimate.low is not None:
            assert (estimate.low, estimate.high) == (pytest.approx(value - reach), pytest.approx(value + reach))
    own = [slow_between(rows[1:], rows[1:]) for rows in (guess, real)]
    assert (found.spearman.value, found.spearman.low) == (pytest.approx(slow_spearman(guess[0], real[0])), None)
    assert (found.reliability, found.truth_reliability) == tuple(pytest.approx(2 * r / (1 + r)) for r in own)
    if min(2 * r / (1 + r) for r in own) >= 0.5:
        expected = slow_between(guess[1:], real[1:]) / (own[0] * own[1]) ** 0.5
        assert found.disattenuated == pytest.approx(max(-1, min(1, expected)))
    else:
        assert found.disattenuated is None


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
    assert found.disattenuated == pytest.approx(1)
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


@pytest.mark.parametrize(("utterances", "held"), [(1, None), (3, False), (4, True)])
def test_two_clusters_give_a_regret_and_four_an_interval(utterances, held):
    sums = random_sums(1, utterances=utterances)
    found = trust(sums, [random_importance(2, sums.utterances)])
    if held is None:
        assert found == []
    else:
        assert (found[0].metrics[0].regret.low is not None) == held


def test_equal_blocks_have_no_regret():
    """Against the block that is best on the same clips the interval excluded 0 in three of four samples."""
    excluded, samples = 0, 100
    for sample in range(samples):
        sums = random_sums(0, depth=17, utterances=24)
        loss = random_importance(sample, sums.utterances, depth=17, sizes=(1,))
        noise = np.random.default_rng(1000 + sample).normal(0, 1, loss.values.shape)
        equal = replace(loss, values=loss.counts[:, None] * (1 + noise))
        regret = row(trust(sums, [equal])[0], "angular", "all", 1).regret
        excluded += regret.low > 0 or regret.high < 0
    assert excluded / samples <= 0.06
