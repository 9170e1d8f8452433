"""What `shoal evaluate` prints of groups, data sets and several plans."""

from __future__ import annotations

from pathlib import Path

import pytest

import shoal
from shoal.cli import main
from shoal.cli.evaluation_tables import summary as printed
from shoal.errors import UsageError
from shoal.evaluation import rescore, utterance_counts
from stored_outputs import evaluation, output
from tiny_speech import loaded, write_clips

SEVEN = "alpha beta gamma delta sigma kappa omega"
SIX = "alpha beta gamma delta sigma kappa"


def rows(said_of, *, text=SEVEN, spoken="en", **fields):
    """60 clips of two speakers and three data sets; `said_of(n)` is what was said."""
    return [
        output(
            n,
            text,
            said_of(n),
            lang=spoken,
            speaker="ab"[n % 2],
            data=("far", "near", "mid")[n // 20],
            **fields,
        )
        for n in range(60)
    ]


def lines(folder: Path, systems, task="asr", **options):
    scores = rescore(evaluation(folder / "out", systems, task=task), replicates=100, **options)
    return "\n".join(map(str, printed(scores))).splitlines()


def line(found, start):
    (one,) = [each for each in found if each.startswith(start)]
    return one


def test_one_plan_has_a_plain_p_and_several_have_holms(tmp_path):
    full, cut = rows(lambda n: SEVEN), rows(lambda n: SIX if n % 2 else SEVEN)
    assert "p" in line(lines(tmp_path / "a", {"full": full, "cut": cut}), "system  removed").split()
    several = lines(tmp_path / "b", {"full": full, "cut": cut, "more": rows(lambda n: SIX)})
    assert "p after Holm" in line(several, "system  removed")


def test_the_group_that_lost_most_stands_beside_all_clips(tmp_path):
    full = rows(lambda n: SEVEN if n % 2 else SIX)
    cut = rows(lambda n: SIX if n % 2 else SEVEN)
    found = lines(tmp_path, {"full": full, "cut": cut})
    assert line(found, "worst speaker of full").startswith("worst speaker of full: a, WER 14.3")
    lost = line(found, "most worsened speaker of cut")
    assert lost.startswith("most worsened speaker of cut: b, WER +14.3 points [+14.3, +14.3] (p ")
    assert "all clips +0 points [" in lost


def test_data_sets_stand_side_by_side_with_those_out_of_domain_last(tmp_path):
    full, cut = rows(lambda n: SEVEN if n < 40 else SIX), rows(lambda n: SIX)
    found = lines(tmp_path, {"full": full, "cut": cut}, out_of_domain=["far"])
    place = found.index("WER by data set:")
    headings = found[place + 1]
    names = "mid (20 clips)", "near (20 clips)", "far, out of domain (20 clips)", "all in domain (40 clips)"
    order = [headings.index(name) for name in names]
    assert order == sorted(order)
    assert "all out of domain" not in headings
    assert found[place + 3].split()[:2] == ["cut", "14.3"]
    assert found[place + 2].count("0.00 % [0.00, 0.00]") == 2


def test_one_data_set_has_no_table_of_sets(tmp_path):
    one = [output(n, SEVEN, SIX, data="only") for n in range(6)]
    assert not [each for each in lines(tmp_path, {"full": one}) if "by data set" in each]


def test_groups_of_other_tasks_are_named_by_their_headline(tmp_path):
    full = rows(lambda n: SEVEN, text=SEVEN, spoken="de")
    cut = rows(lambda n: SEVEN if n % 2 else "alpha omega beta kappa sigma gamma delta", spoken="de")
    found = lines(tmp_path, {"full": full, "cut": cut}, task="ast")
    assert line(found, "worst speaker of cut").startswith("worst speaker of cut: a, BLEU ")
    assert line(found, "most worsened speaker of cut").startswith("most worsened speaker of cut: a, BLEU -")
    assert "BLEU by data set:" in found


def test_compounds_have_a_column_that_shows_where_they_make_a_difference(tmp_path):
    joined = lines(tmp_path / "a", {"full": [output(n, "a white paper", "a whitepaper") for n in range(6)]})
    assert "compound WER" in line(joined, "system  removed")
    assert "0.00 % [0.00, 0.00]" in line(joined, "full ")
    plain = lines(tmp_path / "b", {"full": [output(n, SEVEN, SIX) for n in range(6)]})
    assert line(plain, "full ").count("14.3 % [14.3, 14.3]") == 2


def test_counts_that_disagree_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(utterance_counts, "word_errors_again", lambda references, _: [9] * len(references))
    found = lines(tmp_path, {"full": [output(n, SEVEN, SIX) for n in range(6)]})
    assert "full: jiwer and kaldialign count the errors of 6 clips differently" in found


@pytest.mark.parametrize("formats", [["nemo"], ["lm-eval", "trn"]])
def test_exports_are_written_when_outputs_are_scored_again(tmp_path, formats, capsys):
    out = evaluation(tmp_path / "out", {"full": rows(lambda n: SIX)})
    wanted = [part for name in formats for part in ("--export", name)]
    assert main(["evaluate", "--rescore", "--out", str(out), *wanted]) == 0
    assert sorted(each.name for each in (out / "exports").iterdir()) == sorted(formats)
    assert "WER" in capsys.readouterr().out


def test_a_set_that_is_not_there_is_refused_before_anything_is_decoded(tmp_path):
    data = shoal.read_manifests([str(write_clips(tmp_path / "clips", 2))])
    with pytest.raises(UsageError, match=r"no clip is of the data set 'radio'; sets are clips"):
        shoal.evaluate(loaded(), data, out=tmp_path / "out", out_of_domain=["radio"])
    assert not (tmp_path / "out").exists()


def test_references_that_are_empty_once_normalised_are_named_with_what_was_said_there(tmp_path):
    said = [output(0, "[laughter]", "ha ha ha"), output(1, "hmm", "so so"), output(2, SEVEN, SEVEN)]
    found = lines(tmp_path, {"full": said})
    about = line(found, "2 of 3 references are empty once normalised")
    assert about.endswith("left out of error rates; said there: 5 words by full")
    assert said[0].id in about
    assert said[1].id in about
    assert said[2].id not in about


def test_groups_that_were_asked_for_are_printed_worst_first(tmp_path):
    scores = rescore(
        evaluation(tmp_path / "out", {"full": rows(lambda n: SEVEN), "cut": rows(lambda n: SIX if n % 2 else SEVEN)}),
        replicates=50,
        group_by=["speaker"],
    )
    table = "\n".join(map(str, printed(scores, ["speaker"]))).split("WER by speaker, worst first:")[1].splitlines()
    (heading, *body) = [row for row in table if row.strip()]
    assert heading.split() == ["speaker", "clips", "full", "cut"]
    assert [row.split()[:2] for row in body[:2]] == [["b", "30"], ["a", "30"]]
    assert "worst first" not in "\n".join(map(str, printed(scores)))
