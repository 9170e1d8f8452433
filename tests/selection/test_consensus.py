"""One plan for several audits: the joint loss against its definition, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.cli import main
from shoal.errors import UsageError
from shoal.schema import Audit, Plan
from shoal.selection import select
from shoal.selection.consensus import combined
from synthetic_audits import DEPTH, audit_of, random_importance, random_sums, save_audit


def slow_combined(values: list[list[float]], combine: str, weights: list[float]) -> list[float]:
    width = len(values[0])
    usable = [place for place in range(width) if not any(math.isnan(side[place]) for side in values)]
    joint = [math.nan] * width
    for place in usable:
        parts = [
            weight * side[place] / (sum(abs(side[other]) for other in usable) / len(usable))
            for side, weight in zip(values, weights, strict=True)
        ]
        joint[place] = max(parts) if combine == "worst" else sum(parts) / sum(weights)
    return joint


def side(seed: int, **about: str) -> Audit:
    sums = random_sums(seed)
    return audit_of({"speech": sums}, {"speech": [random_importance(seed, sums.utterances)]}, **about)


def row(audit: Audit, n: int) -> list[float]:
    return audit.inputs["speech"].scopes["all"].metrics["angular"].values[n - 1][:-1]


@pytest.mark.parametrize("combine", ["mean", "worst"])
@given(
    values=st.lists(
        st.lists(st.one_of(st.floats(-3, -0.01), st.floats(0.01, 3), st.just(math.nan)), min_size=5, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_the_joint_loss_is_what_it_is_defined_to_be(combine, values):
    weights = [1.0, 2.0, 0.0, 0.5][: len(values)]
    expected = slow_combined(values, combine, weights)
    assert combined(np.array(values), combine, weights) == pytest.approx(expected, nan_ok=True)


def test_a_task_counts_the_same_whatever_its_unit():
    values = np.random.default_rng(0).random((2, 6))
    scaled = values * np.array([[1.0], [1000.0]])
    for combine in ("mean", "worst"):
        assert combined(scaled, combine, [1, 1]) == pytest.approx(combined(values, combine, [1, 1]))


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_the_plan_for_several_audits_is_the_block_with_the_lowest_joint_loss(combine):
    sides = [side(seed, task=task) for seed, task in enumerate(["asr", "ast", "ser"])]
    plan = select(sides, 2, combine=combine, weights=[1, 2, 1], source_path=["a", "b", "c"])
    joint = slow_combined([row(one, 2) for one in sides], combine, [1, 2, 1])
    assert plan.layers[0] == joint.index(min(joint))
    assert (plan.name, plan.distance) == ("consensus-2", None)
    assert [s.path for s in (plan.source, *plan.source.others)] == ["a", "b", "c"]
    assert [s.weight for s in (plan.source, *plan.source.others)] == [1, 2, 1]
    assert plan.source.combine == combine
    assert Plan.parse(json.loads(plan.model_dump_json()), where="here") == plan


def test_one_audit_is_in_consensus_with_itself():
    assert select(side(1), 2, strategy="consensus").layers == select(side(1), 2).layers


def test_a_task_without_weight_does_not_count():
    sides = [side(1), side(2)]
    assert select(sides, 2, weights=[0, 1]).layers == select(sides[1], 2).layers


def test_a_block_that_one_side_refused_is_out():
    sides = [side(1), side(2)]
    free = select(sides, 1, metric="ablation")
    importance = sides[1].inputs["speech"].importance[0]
    importance.values[free.layers[0]] = None
    importance.refused[free.layers[0]] = "not finite"
    assert select(sides, 1, metric="ablation").layers != free.layers


@pytest.mark.parametrize(
    ("sides", "more"),
    [
        ([side(1), side(2, fingerprint="other")], {}),
        ([side(1), audit_of({"speech": random_sums(1, depth=5)})], {}),
        ([side(1), side(2)], {"strategy": "contiguous"}),
        ([side(1), side(2)], {"weights": [1]}),
        ([side(1), side(2)], {"weights": [1, -1]}),
        ([side(1), side(2)], {"weights": [0, 0]}),
        ([side(1), side(2)], {"weights": [1, math.nan]}),
        ([side(1), side(2)], {"combine": "best"}),
        ([side(1), side(2)], {"part": "mlp"}),
        ([side(1), side(2)], {"metric": "ablation-kl"}),
        ([side(1), side(2)], {"source_path": ["a"]}),
        ([side(1)], {"weights": [1]}),
        ([], {}),
    ],
)
def test_audits_that_cannot_share_a_plan_are_one_line(sides, more):
    with pytest.raises(UsageError) as caught:
        select(sides, 2, **more)
    assert "\n" not in str(caught.value)


def test_the_command_takes_several_audits(tmp_path, capsys):
    paths = [
        str(save_audit(tmp_path / task, {"speech": random_sums(n)}, task=task).parent) for n, task in enumerate("ab")
    ]
    out = str(tmp_path / "plan.json")
    assert main(["select", *paths, "--layers", "2", "--combine", "worst", "--weights", "1,2", "--out", out]) == 0
    assert "for 2 audits, joined by worst" in capsys.readouterr().out
    plan = Plan.load(out)
    assert (plan.strategy, plan.depth, plan.source.others[0].weight) == ("consensus", DEPTH, 2)
    for wrong in (["--combine", "best"], ["--weights", "1,x"], ["--strategy", "deepest"]):
        assert main(["select", *paths, "--layers", "2", *wrong, "--out", str(tmp_path / "no.json")]) == 2
    assert not (tmp_path / "no.json").exists()
