"""Documents from before there were compounds, data sets, Holm and standard errors."""

from __future__ import annotations

import json

from shoal.cli.evaluation_tables import summary
from shoal.evaluation import rescore
from shoal.report import render
from shoal.schema import Scores
from stored_outputs import evaluation, output

NEW = {
    "compound_wer",
    "disagreements",
    "most_worsened",
    "standard_errors",
    "out_of_domain",
    "p_holm",
    "task_settings",
}
NEW_IN_OUTPUTS = {"data", "choices", "loss", "source"}


def without(value, names):
    """A JSON value without some keys, at every depth."""
    if isinstance(value, dict):
        return {key: without(inner, names) for key, inner in value.items() if key not in names}
    return [without(inner, names) for inner in value] if isinstance(value, list) else value


def old(tmp_path):
    """A folder as an older Shoal left it: two systems, two speakers."""
    full = [output(n, "alpha beta gamma", "alpha beta gamma", speaker="ab"[n % 2]) for n in range(40)]
    cut = [output(n, "alpha beta gamma", "alpha beta", speaker="ab"[n % 2]) for n in range(40)]
    out = evaluation(tmp_path / "out", {"full": full, "cut": cut})
    rescore(out, replicates=20)
    path = out / "scores.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()), NEW)))
    for lines in (out / "outputs").glob("*.jsonl"):
        records = [without(json.loads(line), NEW_IN_OUTPUTS) for line in lines.read_text().splitlines()]
        lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    return out


def test_they_load_print_and_report(tmp_path):
    out = old(tmp_path)
    scores = Scores.load(out / "scores.json")
    assert scores.systems[1].wer.value == 1 / 3
    text = summary(scores, out)
    assert "p (Holm)" not in text
    assert "worst speaker of cut: b" in text
    page = render([scores], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Worst group by “speaker”" in page


def test_their_outputs_can_be_scored_again(tmp_path):
    out = old(tmp_path)
    again = rescore(out, replicates=20, exports=["lm-eval", "nemo", "trn"])
    assert again.systems[1].compound_wer is not None
    assert again.systems[1].groups["speaker"]["a"].clips == 20
    assert "data" not in again.systems[1].groups
