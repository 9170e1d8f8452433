"""An audit written while metrics had fields of their own is read, chosen from, compared and reported as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import shoal
from shoal.errors import UsageError
from shoal.measurement.metrics import METRICS
from shoal.schema import Audit, Comparison
from shoal.terms import scope_now

OLD = Path(__file__).parent / "audit_of_0_1"


@pytest.fixture(scope="module")
def raw() -> dict:
    return json.loads((OLD / "audit.json").read_text())


def today(block: dict) -> dict:
    """Stability was a frequency, and the block chosen instead most often says less than the confidence set."""
    named = {name: value for name, value in block.items() if name not in ("stability", "runner_up")}
    return {**named, "selection_frequency": block["stability"], "confidence_set": [], "held_out": None}


def test_its_values_and_best_blocks_are_where_they_are_now(raw):
    audit = Audit.load(OLD / "audit.json")
    assert (raw["schema_version"], audit.schema_version) == (1, 3)  # an older Shoal refuses it by that
    for kind, part in raw["inputs"].items():
        for scope, old in part["scopes"].items():
            metrics = audit.inputs[kind].scopes[scope_now(scope)].metrics
            assert list(metrics) == ["angular", "influence"]
            assert metrics["angular"].values == old["angular"]
            assert metrics["angular"].high == old["angular_high"]
            best = [
                block.model_dump(exclude={"distance": {"caution"}, "near_best_frequency": True})
                for block in metrics["angular"].best
            ]
            assert best == [today(block) for block in old["best"]]
            assert len(metrics["angular"].best_keeping_last) == len(old["best_keeping_last"])
            assert metrics["influence"].values == [old["influence"]]
            assert metrics["influence"].low == [old["influence_low"]]


def test_what_it_trusts_is_read_without_intervals_that_did_not_mean_95_in_100(raw):
    trust = raw["inputs"]["speech"]["trust"][0]["metrics"][0]
    assert trust["regret"]["low"] is not None
    read = Audit.load(OLD / "audit.json").inputs["speech"].trust[0].metrics[0]
    assert (read.regret.value, read.spearman.value) == (trust["regret"]["value"], trust["spearman"]["value"])
    assert read.regret.low is read.spearman.low is read.top_k_regret.high is None


def test_its_importance_is_known_by_the_names_of_today():
    items = Audit.load(OLD / "audit.json").inputs["speech"].importance
    known = {(item.name, item.option, item.measured, item.additive) for item in items if item.part == "layer"}
    assert known == {
        ("gradient signed", "gradient-signed", False, True),
        ("gradient absolute", "gradient-absolute", False, True),
        ("ablation loss", "ablation", True, False),
        ("ablation kl", "ablation-kl", True, False),
        ("ablation score", "ablation-score", True, False),
    }
    titles = {item.quantity: item.title for item in items if item.part == "layer"}
    assert (titles["score"], titles["absolute"]) == ("rise of WER", "absolute value of each position")


def test_what_gradient_meant_is_not_taken_for_what_it_means_today(tmp_path):
    """Also in the files that named it themselves: `gradient`, `absolute`."""
    audit = Audit.load(OLD / "audit.json").model_dump(mode="json")
    item = next(item for item in audit["inputs"]["speech"]["importance"] if item["quantity"] == "absolute")
    item |= {"option": "gradient", "title": "absolute"}
    trust = audit["inputs"]["speech"]["trust"][0]["metrics"]
    row = next(row for row in trust if row["metric"] == "gradient absolute")
    row["title"] = "absolute gradient importance"
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    audit = Audit.load(tmp_path / "audit.json")
    item = next(item for item in audit.inputs["speech"].importance if item.quantity == "absolute")
    assert (item.option, item.title) == ("gradient-absolute", "absolute value of each position")
    rows = audit.inputs["speech"].trust[0].metrics
    assert "gradient importance, absolute per position" in {row.title for row in rows}
    assert item in audit.inputs["speech"].usual_importance()
    assert shoal.select(audit, 1, metric="gradient-absolute").layers
    with pytest.raises(UsageError, match=r"did not measure 'gradient'.*gradient-absolute"):
        shoal.select(audit, 1, metric="gradient")


def test_a_unit_that_was_called_something_else_is_called_as_today():
    audit = Audit.load(OLD / "audit.json").model_dump(mode="json")
    audit["inputs"]["speech"]["scopes"]["all"]["metrics"]["angular"]["unit"] = "share of a half turn"
    again = Audit.model_validate(audit).inputs["speech"].scopes["all"].metrics["angular"]
    assert again.unit == METRICS["angular"].unit == "share of pi"


def test_plans_chosen_from_it_are_those_it_says(raw):
    audit, old = Audit.load(OLD / "audit.json"), raw["inputs"]["speech"]
    best = {block["n"]: block for block in old["scopes"]["all"]["best_keeping_last"]}
    plan = shoal.select(audit, 2)
    assert (plan.layers[0], plan.selection_frequency) == (best[2]["layer"], best[2]["stability"])
    assert plan.distance.model_dump(exclude={"caution"}) == best[2]["distance"]
    assert shoal.select(audit, 2, metric="ablation-kl").layers == [1, 2]
    influence = old["scopes"]["all"]["influence"][:-1]
    assert shoal.select(audit, 1, strategy="lowest").layers == [influence.index(min(influence))]


def test_it_is_compared_as_it_was(tmp_path):
    old = Comparison.load(OLD / "comparison.json")
    again = shoal.compare(OLD / "audit.json", OLD / "audit.json")
    for scope, before in old.scopes.items():
        for name, metric in before.metrics.items():
            now = again.scopes[scope].metrics[name]
            added = {field: getattr(now, field) for field in ("reliability_a", "reliability_b", "disattenuated")}
            assert metric.model_copy(update=added) == now
    raw = json.loads((OLD / "comparison.json").read_text())["scopes"]["all"]
    assert raw["spearman"]["low"] is not None
    assert old.scopes["all"].metrics["angular"].spearman.low is None  # it did not mean 95 %


def test_it_is_measured_no_more_than_a_new_one_and_reported(tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    matrix = shoal.task_matrix([folder / "audit.json"], replicates=20)
    assert matrix.measure == "ablation loss"
    out = shoal.render(
        [Audit.load(folder / "audit.json"), Comparison.load(folder / "comparison.json"), matrix],
        tmp_path / "report.html",
    )
    page = out.read_text()
    for words in ("Ablation: rise of WER", "Block influence", "angular distance (scope response)", "Mean overlap"):
        assert words in page
