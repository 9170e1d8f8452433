"""Documents of version 1, written before every task had its scores as measures: `old_files` are real ones.

`scores-asr-first.json` is from before there were compounds, data sets, Holm and standard errors.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import report_documents

from shoal.cli.evaluation_tables import summary
from shoal.errors import FileFormatError
from shoal.evaluation import rescore
from shoal.report import render
from shoal.schema import Healing, Scores, Search, Validation
from shoal.validation.validate import validate
from stored_outputs import evaluation, output

OLD = Path(__file__).parent / "old_files"
NEW_IN_OUTPUTS = {"data", "choices", "loss", "source"}


ADDED = {"caution", "design_effect", "smallest_p", "bound_with_unseen", "relative_bound_with_unseen"}
"""What a record has had since."""


def dumped(record):
    return without(record.model_dump(exclude={"standard_error", "edits"}), ADDED)


def without(value, names):
    """A JSON value without some keys, at every depth."""
    if isinstance(value, dict):
        return {key: without(inner, names) for key, inner in value.items() if key not in names}
    return [without(inner, names) for inner in value] if isinstance(value, list) else value


def old(tmp_path):
    """A folder as the first Shoal left it: two systems, two speakers."""
    full = [output(n, "alpha beta gamma", "alpha beta gamma", speaker="ab"[n % 2]) for n in range(40)]
    cut = [output(n, "alpha beta gamma", "alpha beta", speaker="ab"[n % 2]) for n in range(40)]
    out = evaluation(tmp_path / "out", {"full": full, "cut": cut})
    shutil.copy(OLD / "scores-asr-first.json", out / "scores.json")
    for lines in (out / "outputs").glob("*.jsonl"):
        records = [without(json.loads(line), NEW_IN_OUTPUTS) for line in lines.read_text().splitlines()]
        lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    return out


def test_they_load_print_and_report(tmp_path):
    out = old(tmp_path)
    scores = Scores.load(out / "scores.json")
    assert scores.systems[1].measures["WER"].value.value == 1 / 3
    text = "\n".join(map(str, summary(scores)))
    assert "p after Holm" not in text
    assert "worst speaker of cut: b" in text
    page = render([scores], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Worst group by “speaker”" in page


def test_their_outputs_can_be_scored_again(tmp_path):
    out = old(tmp_path)
    again = rescore(out, replicates=20, exports=["lm-eval", "nemo", "trn"])
    assert again.systems[1].measures["compound WER"] is not None
    assert again.systems[1].groups["speaker"]["a"].clips == 20
    assert "data" not in again.systems[1].groups


def test_rates_that_had_fields_of_their_own_are_measures():
    raw = json.loads((OLD / "scores-asr.json").read_text())
    scores = Scores.load(OLD / "scores-asr.json")
    assert (scores.schema_version, scores.headline) == (2, "WER")
    for before, system in zip(raw["systems"], scores.systems, strict=True):
        assert list(system.measures) == ["WER", "CER", "compound WER"]
        wer, cer, compound = system.measures.values()
        assert [dumped(score.value) for score in (wer, cer, compound)] == [
            before["wer"],
            before["cer"],
            before["compound_wer"],
        ]
        assert (wer.delta and dumped(wer.delta)) == before["delta_wer"]
        assert (wer.edits.model_dump(), cer.edits.model_dump()) == (
            before["word_counts"],
            before["char_counts"],
        )
        assert {
            "wer": wer.standard_error, "cer": cer.standard_error, "compound_wer": compound.standard_error
        } == before["standard_errors"]  # fmt: skip
        for field, groups in before["groups"].items():
            for value, group in groups.items():
                score = scores.headline_of(system.groups[field][value])
                assert dumped(score.value) == group["wer"]
                assert (score.delta and dumped(score.delta)) == group["delta"]


@pytest.mark.parametrize("task", ["ast", "ser"])
def test_measures_of_other_tasks_stay_and_their_edit_rates_go(task):
    raw = json.loads((OLD / f"scores-{task}.json").read_text())
    scores = Scores.load(OLD / f"scores-{task}.json")
    assert "WER" not in scores.systems[0].measures
    for before, system in zip(raw["systems"], scores.systems, strict=True):
        assert list(system.measures) == list(before["measures"])
        for name, score in system.measures.items():
            assert dumped(score) == before["measures"][name]
            assert score.standard_error == before["standard_errors"][name]


def test_a_healing_has_its_rates_as_scores():
    raw = json.loads((OLD / "healing.json").read_text())
    healing = Healing.load(OLD / "healing.json")
    assert (healing.score_name, dumped(healing.baseline.value)) == ("WER", raw["baseline_wer"])
    for before, cell in zip(raw["cells"], healing.cells, strict=True):
        assert dumped(cell.score.value) == before["wer"]
        assert dumped(cell.score.delta) == before["delta"]


def test_a_promise_is_a_requirement():
    validation = Validation.load(OLD / "validation.json")
    raw = json.loads((OLD / "validation.json").read_text())
    assert [finding.requirement for finding in validation.findings] == [
        finding["promise"] for finding in raw["findings"]
    ]
    again = validate(["WER<=10%", "WER increase<=5%", "UAR>=0.5"], [Scores.load(OLD / "scores-asr.json")])
    assert again.findings == validation.findings


def test_one_that_lacks_its_rate_is_refused_in_one_line(tmp_path):
    raw = json.loads((OLD / "scores-asr.json").read_text())
    del raw["systems"][0]["wer"]
    (tmp_path / "scores.json").write_text(json.dumps(raw))
    with pytest.raises(FileFormatError, match="not what version 1 of this file holds"):
        Scores.load(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("name", "higher", "fraction"),
    [("WER", False, True), ("accuracy", True, True), ("BLEU", True, False), ("loss", False, False)],
)
def test_a_search_knew_which_way_its_score_runs_by_the_name(name, higher, fraction, tmp_path):
    record = report_documents.search(score_name=name).model_dump(mode="json") | {"schema_version": 1}
    (tmp_path / "search.json").write_text(json.dumps(without(record, {"higher_is_better", "fraction"})))
    search = Search.load(tmp_path / "search.json")
    assert (search.score_name, search.higher_is_better, search.fraction) == (name, higher, fraction)
