"""Groups and data sets in the report, from outputs that were scored."""

from __future__ import annotations

import pytest

from shoal.evaluation import rescore
from shoal.report import groups, render
from shoal.score_tables import data_set_table, p_heading, p_text
from stored_outputs import evaluation, output

SEVEN = "alpha beta gamma delta sigma kappa omega"
SIX = "alpha beta gamma delta sigma kappa"


def rows(said_of, **fields):
    return [
        output(n, SEVEN, said_of(n), speaker="ab"[n % 4 == 0], data=("far", "near", "mid")[n % 3], **fields)
        for n in range(96)
    ]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Three of four clips get better, those of speaker b get worse."""
    full = rows(lambda n: SEVEN if n % 4 == 0 else SIX)
    unfair = rows(lambda n: SIX if n % 4 == 0 else SEVEN)
    systems = {"full": full, "unfair": unfair, "worse": rows(lambda n: "alpha")}
    out = evaluation(tmp_path_factory.mktemp("scored") / "out", systems)
    return rescore(out, replicates=200, out_of_domain=["far", "mid"])


def test_data_sets_stand_side_by_side(scores):
    table = data_set_table(scores)
    assert list(table.columns[1::2]) == [
        "near (32 clips)",
        "far, out of domain (32 clips)",
        "mid, out of domain (32 clips)",
        "all out of domain (64 clips)",
    ]
    assert [len(row) for row in table.rows] == [9, 9, 9]
    assert table.rows[2][1].startswith("85.7\u202f% [")


def test_the_worst_group_and_the_one_that_lost_most_have_a_row_for_each_system(scores):
    (table,) = groups.tables(scores)
    unfair = dict(zip(table.columns, table.rows[1], strict=True))
    assert (unfair["Worst group"], unfair["Lost most"]) == ("b", "b")
    assert unfair["Change there"].startswith("+14.3 points [")
    assert unfair["Change overall"].startswith("−")
    assert dict(zip(table.columns, table.rows[0], strict=True))["Lost most"] == "–"


def test_a_better_average_does_not_hide_a_group_that_lost(scores):
    (sentence,) = groups.unfair(scores)
    assert sentence.startswith("unfair did not get worse on all clips together (WER −")
    assert "for the speaker “b”: +14.3 points [" in sentence


def test_p_values_are_corrected_and_said_to_be(scores, tmp_path):
    page = render([scores], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "after Holm’s correction over the 2 systems compared with the first" in page
    assert "WER by data set" in page
    assert "did not get worse on all clips together" in page
    assert p_text(scores, scores.systems[1].measures["WER"]) != "–"


def test_scores_from_before_there_were_sets_have_none(scores):
    old = scores.model_copy(deep=True)
    for system in old.systems:
        system.groups, system.worst_group, system.most_worsened = {}, {}, {}
        if delta := system.measures["WER"].delta:
            delta.p_holm = None
    assert (data_set_table(old), groups.tables(old), groups.unfair(old)) == (None, [], [])
    assert p_heading(old) == "p"
