"""A new metric is one object in the registry: it is measured, chosen by, searched by, judged, compared and reported.

Nothing but the registry is touched.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import shoal
from shoal.cli import main
from shoal.errors import UsageError
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import CosineMetric, ImportanceMetric, ImportanceRequest, Quantity
from shoal.measurement.metrics import METRICS
from shoal.schema import Audit, Comparison, Plan
from tiny_speech import dataset, loaded

DEPTH = 4
FEW = {"replicates": 30, "batch_size": 6}


def likeness(cosines: Tensor, depth: int) -> Tensor:
    """The cosine itself: the higher, the more redundant; the opposite of an angle in every respect."""
    del depth
    return cosines.clone()


def eager(request: ImportanceRequest) -> list[ImportanceSums]:
    """As if every layer cost as many votes as there are layers from it on: the deeper, the safer to remove."""
    sums = []
    for part in request.options.parts:
        batches = list(request.batches())
        ids = [name for batch in batches for name in batch.ids]
        counts = np.array([len(name) for name in ids], dtype=np.int64)
        values = counts[:, None] * np.arange(DEPTH, 0, -1.0)
        candidates = tuple((layer,) for layer in range(DEPTH))
        about = ("eager", "votes", request.options.scope, part, candidates, tuple(ids))
        sums.append(ImportanceSums(*about, values, counts, unit="votes"))
    return sums


LIKENESS = CosineMetric("likeness", "cosine likeness", "cosine", likeness, low_is_redundant=False)
EAGER = ImportanceMetric("eager", (Quantity("votes", "votes against it"),), eager, additive=True)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, "likeness", LIKENESS)
        patch.setitem(METRICS, "eager", EAGER)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def audited(registered, tmp_path_factory, data) -> Path:
    """The folder of an audit with both, and with ablation to judge them by."""
    out, metrics = tmp_path_factory.mktemp("audit"), ["eager", "ablation"]
    shoal.audit(loaded(), data, "asr", metrics=metrics, parts=["layer", "attention"], out=out, **FEW)
    return out


def test_an_audit_holds_it_and_says_how_far_to_trust_it(audited):
    measured = Audit.load(audited / "audit.json").inputs["speech"]
    values, angular = (measured.scopes["all"].metrics[name] for name in ("likeness", "angular"))
    assert (values.title, values.unit, values.low_is_redundant) == ("cosine likeness", "cosine", False)
    for best in values.best_keeping_last:
        row = values.values[best.n - 1][:-1]
        assert best.layer == row.index(max(row))
        assert best.distance.low <= best.distance.value <= best.distance.high
    assert len(values.best) == len(angular.best) == DEPTH
    votes = [item for item in measured.importance if item.metric == "eager"]
    assert [(item.part, item.option, item.values) for item in votes] == [
        ("layer", "eager", [4, 3, 2, 1]),
        ("attention", "eager", [4, 3, 2, 1]),
    ]
    judged = {(m.metric, m.scope): m for m in measured.trust[0].metrics if m.n == 1}
    assert judged["eager votes", "response"].picked == 3
    row = values.values[0]
    assert judged["likeness", "all"].picked == row.index(max(row))
    assert judged["likeness", "all"].title == "cosine likeness"


def test_plans_are_chosen_by_it(audited, tmp_path, capsys):
    audit = Audit.load(audited / "audit.json")
    row = audit.inputs["speech"].scopes["all"].metrics["likeness"].values[1][:-1]
    plan = shoal.select(audit, 2, metric="likeness")
    assert plan.layers[0] == row.index(max(row))
    assert plan.importance.value == max(row)
    assert plan.selection_frequency is not None
    assert shoal.select(audit, 2, metric="likeness", strategy="consensus").layers == plan.layers
    assert shoal.select(audit, 2, metric="eager").layers == [1, 2]
    assert shoal.select(audit, 2, metric="eager").importance.value == 5
    assert shoal.select(audit, 1, metric="eager", part="attention", allow_last=True).layers == [3]
    singles = audit.inputs["speech"].scopes["all"].metrics["likeness"].values[0][:-1]
    assert shoal.select(audit, 1, strategy="lowest", metric="likeness").layers == [singles.index(max(singles))]
    out = tmp_path / "plan.json"
    command = ["select", str(audited), "--layers", "1", "--out", str(out)]
    assert main([*command, "--metric", "eager"]) == 0
    assert "eager 2.0000" in capsys.readouterr().out
    assert Plan.load(out).source.metric == "eager"
    assert main([*command, "--metric", "likenes"]) == 2
    assert "did you mean likeness?" in capsys.readouterr().err


@pytest.mark.parametrize("metric", ["likeness", "eager"])
@pytest.mark.parametrize("strategy", ["contiguous", "lowest"])
def test_a_search_goes_by_it(metric, strategy, data):
    model = loaded()
    found = shoal.search(model, data, max_increase=1e9, point=True, strategy=strategy, metric=metric, patience=1, **FEW)
    assert found.metric == metric
    first = next(step for step in found.steps if len(step.plan.layers) == 1)
    if metric == "eager":
        assert first.plan.layers == [DEPTH - 2]
        assert first.measure.value == 2
    else:
        assert 0 < first.measure.value <= 1


def test_two_audits_are_compared_by_it(audited, tmp_path, capsys):
    out = tmp_path / "comparison.json"
    assert main(["compare", str(audited), "--out", str(out)]) == 0
    assert "cosine likeness: rank correlation" in capsys.readouterr().out
    scope = Comparison.load(out).scopes["response"]
    assert set(scope.metrics) == {"angular", "influence", "likeness"}
    alike, angular = scope.metrics["likeness"], scope.metrics["angular"]
    assert alike.overlaps[0].n == 1
    assert -1 <= alike.spearman_within_n.value <= 1
    same = shoal.compare(audited / "audit.json", audited / "audit.json", input_b="speech")
    assert same.scopes["all"].metrics["likeness"].mean_overlap.value == 1
    assert angular.title == "angular distance"


def test_the_report_shows_it(audited, tmp_path):
    comparison, out = tmp_path / "comparison.json", tmp_path / "report.html"
    shoal.compare(audited / "audit.json", audited / "audit.json").save(comparison)
    assert main(["report", str(audited / "audit.json"), str(comparison), "--out", str(out)]) == 0
    page = out.read_text()
    for words in (
        "heatmap-0-likeness-speech",
        "spans-0-likeness",
        "Cosine likeness of the single layer",
        "Eager: votes against it (votes)",
        "eager votes",
        "cosine likeness (scope response)",
        "Mean overlap, cosine likeness",
    ):
        assert words in page, words


def test_an_audit_that_lacks_it_is_measured_again_and_then_kept(tmp_path, data, monkeypatch):
    model = loaded()
    monkeypatch.delitem(METRICS, "likeness")
    shoal.audit(model, data, "asr", out=tmp_path, **FEW)
    monkeypatch.setitem(METRICS, "likeness", LIKENESS)
    again = shoal.audit(model, data, "asr", out=tmp_path, **FEW)
    assert "likeness" in again.inputs["speech"].scopes["all"].metrics


def test_a_metric_that_there_is_not_may_be_a_slip_of_the_pen(data):
    with pytest.raises(UsageError, match=r"unknown metric 'egger'; did you mean eager\?"):
        shoal.audit(loaded(), data, "asr", metrics=["egger"])
    with pytest.raises(UsageError, match="only ablation does that"):
        shoal.audit(loaded(), data, "asr", metrics=["eager"], race=True)
