"""Audits of one model side by side: likeness, plans and what sharing one costs, each against its definition."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

import shoal
from shoal.cli import main
from shoal.errors import UsageError
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metrics import metric_slices
from shoal.measurement.sums import Sums
from shoal.schema import SCOPES, Estimate, TaskMatrix
from shoal.statistics import halves_of, make_resampler
from synthetic_audits import DEPTH, blocks, random_importance, random_sums, save_audit, slow_spearman

LEVEL, REPLICATES, SEED = 0.9, 30, 5
TASKS = ("asr", "ast", "ser")


def sides() -> list[tuple[Sums, ImportanceSums]]:
    """The first two measured on the same utterances; the third on fewer of its own, in another order."""
    found = []
    for seed, prefix in ((1, "u"), (2, "u"), (3, "v")):
        sums = random_sums(seed, prefix=prefix)
        names = sums.utterances if prefix == "u" else sums.utterances[6:0:-1]
        found.append((sums, random_importance(10 + seed, names, sizes=(1, 2))))
    return found


def save(folder: Path, found: list[tuple[Sums, ImportanceSums]], *, importance: bool = True) -> list[Path]:
    return [
        save_audit(folder / task, {"speech": sums}, {"speech": [item]} if importance else None, task=task)
        for task, (sums, item) in zip(TASKS, found, strict=False)
    ]


def matrix(paths: list[Path], **more) -> TaskMatrix:
    return shoal.task_matrix(paths, replicates=REPLICATES, level=LEVEL, seed=SEED, **more)


def weights_of(sums: Sums, seed: int) -> list[dict[str, float]]:
    """Of each utterance: 1 for the full sample, then how often each replicate drew it."""
    resampler = make_resampler([None] * len(sums.utterances), replicates=REPLICATES, seed=seed)
    drawn = [
        {name: float(row[resampler.groups[place]]) for place, name in enumerate(sums.utterances)}
        for row in resampler.weights
    ]
    return [dict.fromkeys(sums.utterances, 1.0), *drawn]


def slow_loss(item: ImportanceSums, layers: tuple[int, ...], weight: dict[str, float]) -> float:
    place, lost, tokens = item.candidates.index(layers), 0.0, 0.0
    for row, name in enumerate(item.utterances):
        lost += weight[name] * float(item.values[row, place])
        tokens += weight[name] * int(item.counts[row])
    return lost / tokens


def slow_angular(sums: Sums, scope: str, weight: dict[str, float]) -> list[float]:
    part, place = metric_slices(DEPTH)["angular"], SCOPES.index(scope)
    positions = sum(weight[name] * int(sums.counts[row, place]) for row, name in enumerate(sums.utterances))
    return [
        sum(weight[name] * float(sums.values[row, place, c]) for row, name in enumerate(sums.utterances)) / positions
        for c in range(part.start, part.stop)
    ]


def by_size(triangle: list[float]) -> list[list[float]]:
    rest, rows = iter(triangle), []
    for n in range(1, DEPTH + 1):
        rows.append([next(rest) for _ in range(DEPTH - n + 1)])
    return rows[:-1]


def slow_overlap(a: list[float], b: list[float]) -> float:
    shares = []
    for n, (x, y) in enumerate(zip(by_size(a), by_size(b), strict=True), 1):
        first, second = x.index(min(x)), y.index(min(y))
        shares.append(len(set(range(first, first + n)) & set(range(second, second + n))) / n)
    return sum(shares) / len(shares)


def slow_within(a: list[float], b: list[float]) -> float:
    found = [slow_spearman(x, y) for x, y in zip(by_size(a), by_size(b), strict=True)]
    return sum(found) / len(found)


def lost(item: ImportanceSums, layers: tuple[int, ...]) -> dict[str, tuple[float, int]]:
    """Utterance → what it loses without these layers, and its tokens."""
    place = item.candidates.index(layers)
    return {name: (float(item.values[r, place]), int(item.counts[r])) for r, name in enumerate(item.utterances)}


def mean_and_error(sums: dict[str, tuple[float, int]], weight: dict[str, float]) -> tuple[float, float]:
    """A ratio of two sums and its linearised standard error, of utterances as often as they were drawn."""
    drawn = sum(weight.values())
    tokens = sum(weight[name] * count for name, (_, count) in sums.items())
    mean = sum(weight[name] * value for name, (value, _) in sums.items()) / tokens
    squares = sum(weight[name] * (value - mean * count) ** 2 for name, (value, count) in sums.items())
    return mean, math.sqrt(squares * drawn / (drawn - 1)) / tokens


def assert_studentised(found: Estimate, sums: dict[str, tuple[float, int]], weights: list[dict[str, float]]) -> None:
    """The bootstrap-t interval, at least as wide as Student's."""
    mean, error = mean_and_error(sums, weights[0])
    clusters, distances = len(weights[0]), []
    for weight in weights[1:]:
        value, spread = mean_and_error(sums, weight)
        distances.append((value - mean) / max(spread, error / math.sqrt(clusters)) if error else 0.0)
    low, high = np.quantile(distances, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    reach = student.ppf((1 + LEVEL) / 2, clusters - 1)
    assert found.value == pytest.approx(mean)
    assert found.low == pytest.approx(mean - max(high, reach) * error)
    assert found.high == pytest.approx(mean - min(low, -reach) * error)


def assert_held_out(found: Estimate, measured, place: int, plan: str, n: int) -> None:
    """Plan and own plan chosen on half of the utterances of each side, and measured on the other half."""
    item = measured[place][1]
    halves = [chosen_on_halves(measured, side, n) for side in range(len(measured))]
    own, means, variances = halves[place][0], [], []
    for k in range(40):
        if plan == "consensus":
            values = [halves[side][1][k] for side in range(len(measured))]
            scale = [sum(map(abs, value.values())) / len(value) for value in values]
            block = min(values[0], key=lambda b: sum(v[b] / s for v, s in zip(values, scale, strict=True)))
        else:
            block = halves[TASKS.index(plan)][0][k]
        apart = {
            name: (x[0] - y[0], x[1])
            for (name, x), y in zip(lost(item, block).items(), lost(item, own[k]).values(), strict=True)
            if name in halves[place][2][k ^ 1]
        }
        tokens = sum(count for _, count in apart.values())
        means.append(sum(value for value, _ in apart.values()) / tokens)
        squares = sum(((value - means[-1] * count) / tokens) ** 2 for value, count in apart.values())
        variances.append(squares * len(apart) / (len(apart) - 1))
    mean, clusters = sum(means) / 40, len(item.utterances)
    reach = student.ppf((1 + LEVEL) / 2, clusters - 2) * math.sqrt(sum(variances) / 40 / 2)
    assert found.value == pytest.approx(mean)
    assert (found.low, found.high) == (pytest.approx(mean - reach), pytest.approx(mean + reach))


def chosen_on_halves(measured, side: int, n: int):
    """Of one side the best block of each half, the values of all blocks there, and the utterances of the half."""
    sums, item = measured[side]
    resampler = make_resampler([None] * len(sums.utterances), replicates=0, seed=0)
    names = {int(group): name for group, name in zip(resampler.groups, sums.utterances, strict=True)}
    known = np.array([names[group] in item.utterances for group in range(len(names))])
    best, values, members = [], [], []
    for row in halves_of(resampler, known).weights:
        weight = {names[group]: float(row[group]) for group in names}
        values.append({layers: slow_loss(item, layers, weight) for layers in blocks(DEPTH, [n])})
        best.append(min(values[-1], key=values[-1].__getitem__))
        members.append({name for name in item.utterances if weight[name]})
    return best, values, members


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("audits")


@pytest.fixture(scope="module")
def paths(folder) -> list[Path]:
    return save(folder, sides())


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2)])
def test_likeness_is_what_it_is_defined_to_be(paths, a, b):
    found, full = matrix(paths, scope="last"), [weights_of(sums, SEED)[0] for sums, _ in sides()]
    pair = [slow_angular(sides()[side][0], "last", full[side]) for side in (a, b)]
    likeness = found.spearman[a][b], found.overlap[a][b]
    assert [one.value for one in likeness] == [pytest.approx(slow(*pair)) for slow in (slow_within, slow_overlap)]
    assert [one.low for one in likeness] == [None, None]
    assert found.spearman[a][b] == found.spearman[b][a]
    assert found.spearman[a][a] == found.overlap[b][b] == Estimate(value=1)


@pytest.mark.parametrize("n", [1, 2])
def test_what_a_side_loses_under_a_plan_is_its_own_measure_of_it(paths, n):
    found, measured = matrix(paths), sides()
    assert (found.measure, found.unit, found.sizes) == ("ablation loss", "nats a token", [1, 2])
    ones = [dict.fromkeys(sums.utterances, 1.0) for sums, _ in measured]
    values = [
        {layers: slow_loss(item, layers, one) for layers in blocks(DEPTH, [n])}
        for (_, item), one in zip(measured, ones, strict=True)
    ]
    best = [min(value, key=value.__getitem__) for value in values]
    scale = [sum(map(abs, value.values())) / len(value) for value in values]
    shared = min(values[0], key=lambda block: sum(v[block] / s for v, s in zip(values, scale, strict=True)))
    plans = dict(zip([*TASKS, "consensus"], [*best, shared], strict=True))
    losses = {(loss.task, loss.plan): loss for loss in found.losses if loss.n == n}
    assert set(losses) == {(task, plan) for task in TASKS for plan in plans}
    for (task, plan), loss in losses.items():
        place = TASKS.index(task)
        sums, item = measured[place]
        weights = weights_of(sums, SEED + (2 if place == 2 else 0))
        assert tuple(loss.layers) == plans[plan]
        assert_studentised(loss.loss, lost(item, plans[plan]), weights)
        assert_held_out(loss.excess, measured, place, plan, n)


def test_without_ablation_on_every_side_plans_are_chosen_by_the_angular_distance(tmp_path, paths):
    bare = save(tmp_path, sides()[:2], importance=False)
    found = matrix([*bare[:1], paths[1]])
    assert (found.measure, found.unit, found.sizes) == ("angular", "share of pi", [1, 2, 4])
    own = next(loss for loss in found.losses if loss.n == 4 and loss.task == loss.plan)
    assert own.layers == shoal.select(shoal.Audit.load(bare[0]), 4).layers
    assert matrix(paths, sizes=[1, 3]).measure == "angular"
    assert matrix(paths, sizes=[2]).measure == "ablation loss"


def test_a_block_that_a_side_refused_is_no_shared_plan_and_has_no_loss_there(tmp_path):
    measured = sides()[:2]
    best = next(
        loss.layers[0]
        for loss in matrix(save(tmp_path / "free", measured)).losses
        if (loss.task, loss.plan, loss.n) == ("asr", "asr", 1)
    )
    measured[1] = (measured[1][0], replace(measured[1][1], refused={best: "not finite"}))
    losses = [loss for loss in matrix(save(tmp_path / "refused", measured)).losses if loss.n == 1]
    assert not [loss for loss in losses if (loss.task, loss.plan) == ("ast", "asr")]
    assert all(loss.layers != [best] for loss in losses if loss.plan == "consensus")


def test_sizes_in_which_a_race_dropped_a_block_are_not_judged_by_ablation(tmp_path):
    measured = sides()[:2]
    measured[0][1].values[4:, 2] = np.nan
    found = matrix(save(tmp_path, measured))
    assert (found.measure, found.sizes) == ("ablation loss", [2])
    assert matrix(save(tmp_path, measured), sizes=[1]).measure == "angular"


def test_one_audit_sets_speech_against_text(tmp_path):
    path = save_audit(tmp_path, {"speech": random_sums(1), "text": random_sums(2)})
    found = matrix([path])
    assert [side.label for side in found.sides] == ["speech", "text"]
    assert [side.input for side in matrix([path, path], inputs=["text", "speech"]).sides] == [
        "text",
        "speech",
    ]


def test_labels_say_what_sets_the_sides_apart(tmp_path):
    about = [
        {"task": "asr", "language": "en"},
        {"task": "asr", "language": "de"},
        {"task": "ast", "language": "de", "manifest": "other.jsonl"},
        {"task": "ast", "language": "de", "manifest": "other.jsonl"},
    ]
    paths = [save_audit(tmp_path / f"f{i}", {"speech": random_sums(i)}, **one) for i, one in enumerate(about)]
    assert [side.label for side in matrix(paths[:2]).sides] == ["en", "de"]
    assert [side.label for side in matrix(paths[:3]).sides] == ["asr, en", "asr, de", "ast, de"]
    names = [side.label for side in matrix(paths).sides]
    assert len(set(names)) == 4
    assert names[2:] == ["ast, de, f2", "ast, de, f3"]


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"scope": "audio"}, "no 'audio' positions"),
        ({"sizes": [6]}, "6 of 6 layers"),
        ({"sizes": [0]}, "0 of 6 layers"),
        ({"scope": "left"}, "unknown scope"),
        ({"weights": [1, 2]}, "does not weigh 3"),
        ({"combine": "best"}, "unknown combine"),
        ({"inputs": ["speech"]}, "3 audits and 1 inputs"),
        ({"inputs": ["text"] * 3}, "no text input"),
    ],
)
def test_what_does_not_fit_is_one_line(paths, more, match):
    with pytest.raises(UsageError, match=match) as caught:
        matrix(paths, **more)
    assert "\n" not in str(caught.value)


def test_audits_must_be_of_one_model_and_differ(tmp_path, paths):
    other = save_audit(tmp_path / "other", {"speech": random_sums(1)}, fingerprint="g")
    deeper = save_audit(tmp_path / "deeper", {"speech": random_sums(1, depth=7)})
    for more, match in (([other], "different weights"), ([deeper], "6 and 7 layers"), ([paths[0]], "twice")):
        with pytest.raises(UsageError, match=match):
            matrix([*paths, *more])
    with pytest.raises(UsageError, match="two audits"):
        matrix([])


def test_a_model_that_hears_is_set_beside_the_llm_inside_it(tmp_path):
    hears = save_audit(tmp_path / "speech", {"speech": random_sums(1), "text": random_sums(2)}, name="org/speech-llm")
    about = {"model_kind": "causal_lm", "fingerprint": "g", "name": "org/llm"}
    inside = save_audit(tmp_path / "inside", {"text": random_sums(3)}, **about)
    found = matrix([hears, hears, inside], inputs=["speech", "text", "text"])
    assert [side.label for side in found.sides] == ["speech-llm, speech", "speech-llm, text", "llm, text"]
    assert found.spearman[0][2].value == pytest.approx(shoal.compare(hears, inside).scopes["all"].metrics[
        "angular"].spearman_within_n.value)  # fmt: skip
    assert shoal.compare(hears, inside).same_layers
    wider = save_audit(tmp_path / "wider", {"text": random_sums(3)}, hidden_size=16, **about)
    assert shoal.compare(hears, wider).same_layers is False
    with pytest.raises(UsageError, match=r"org/llm is not the LLM inside org/speech-llm"):
        matrix([hears, wider])
    stranger = save_audit(tmp_path / "stranger", {"text": random_sums(3)}, **about | {"fingerprint": "h"})
    with pytest.raises(UsageError, match="different weights"):
        matrix([hears, inside, stranger])


def test_the_command_prints_the_tables_and_writes_the_file(folder, paths, capsys, tmp_path):
    out = tmp_path / "matrix.json"
    command = ["compare", *map(str, paths), "--replicates", "20", "--out", str(out)]
    assert main([*command, "--combine", "worst", "--weights", "1,1,2", "--sizes", "2"]) == 0
    printed = capsys.readouterr().out
    for word in ("asr", "rank correlation", "overlap", "plan of 2 for", "consensus", "(own)", "nats a token"):
        assert word in printed
    found = TaskMatrix.load(out)
    assert (found.combine, found.weights, found.sizes) == ("worst", [1, 1, 2], [2])
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "task_matrix"
    two = ["compare", str(folder / "asr"), str(folder / "ast")]
    assert main([*two, "--matrix", "--replicates", "20"]) == 0
    assert main(two) == 0
    printed = capsys.readouterr().out
    assert "same utterances: True" in printed
    assert re.search(
        r"angular distance: rank correlation among blocks of one size 0\.\d+.*, over all blocks 0\.", printed
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ["--matrix", "--input-a", "text"],
        ["--sizes", "2"],
        ["--matrix", "--sizes", "x"],
        ["--matrix", "--scope", "all", "--scope", "last"],
        ["--matrix", "--inputs", "speech,video"],
        ["--matrix", "--combine", "best"],
    ],
)
def test_options_that_do_not_fit_are_refused(paths, wrong):
    assert main(["compare", *map(str, paths[:2]), *wrong]) == 2
