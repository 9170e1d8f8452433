"""What intervals and tests cannot tell is said wherever they are shown: marks, footnotes, what was drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import report_documents as documents

import shoal
from shoal import wording
from shoal.cards import markdown, results
from shoal.cards.measured import Measured
from shoal.cli import audit as audit_command
from shoal.cli import evaluation_tables
from shoal.cli import search as search_command
from shoal.cli.printing import Printing, TablePrinting
from shoal.evaluation import rescore
from shoal.evaluation.scores.registry import BY_NAME
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise
from shoal.plan_search.words import reason
from shoal.report import render
from shoal.schema import Drawn, Estimate, Scores
from shoal.schema.record import with_caution
from shoal.statistics import Units
from shoal.statistics.resampling import FEW_CLUSTERS
from shoal.tables import Table
from shoal.terms import Caution
from shoal.validation.junit import junit
from stored_outputs import evaluation, output
from synthetic_audits import audit_of, random_sums, save_audit

FEW, ONE = wording.FOOTNOTES.values()
SEVEN, SIX = "alpha beta gamma delta sigma kappa omega", "alpha beta gamma delta sigma kappa"


def estimate(caution: Caution | None) -> Estimate:
    return Estimate(value=0.2, low=0.1, high=0.3, caution=caution)


@pytest.mark.parametrize(("caution", "mark"), [(None, ""), ("few clusters", "†"), ("one speaker", "‡")])
def test_every_way_to_write_an_interval_has_the_mark_behind_the_bracket(caution, mark):
    written = [
        wording.percent_estimate(estimate(caution)),
        wording.absolute_change(estimate(caution)),
        wording.ratio_estimate(estimate(caution)),
        wording.number_estimate(estimate(caution)),
        wording.milliseconds(estimate(caution)),
        wording.plain(estimate(caution)),
        wording.plain_score(estimate(caution).scaled(2), fraction=True),
    ]
    assert [text[text.index("]") + 1 :] for text in written] == [mark] * len(written)


def test_the_footnote_of_few_clusters_says_how_few():
    assert f"fewer than {FEW_CLUSTERS} speakers" in FEW
    assert wording.footnotes("1 [0, 2]") == wording.footnotes("a † in somebody's text") == []
    assert wording.footnotes("1 [0, 2]‡, 1 [0, 2]†") == [FEW, ONE]


def test_a_terminal_has_the_footnote_behind_the_last_mark(capsys):
    table = Table(["system", "WER"], [["full", wording.plain(estimate("few clusters"))]])
    Printing().show({}, [table, "next: more clips"], Path("scores.json"))
    assert capsys.readouterr().out.splitlines()[2:] == [FEW, "next: more clips", "scores.json"]
    TablePrinting(format="md").show({}, [table])
    assert capsys.readouterr().out.splitlines()[-1] == FEW
    Printing().show({}, ["1 [0, 2]"])
    assert "speaker" not in capsys.readouterr().out


def test_a_section_of_a_card_ends_with_the_footnote():
    assert markdown.section("Scores", "0.2 [0.1, 0.3]‡").splitlines()[-1] == ONE
    assert markdown.section("Scores", "0.2 [0.1, 0.3]").splitlines()[-1] == "0.2 [0.1, 0.3]"


def test_a_report_has_one_footnote_in_each_section_with_marks(tmp_path):
    scores, bench, audit = documents.scores(), documents.bench(), documents.audit()
    page = render([scores, bench, audit], tmp_path / "plain.html").read_text(encoding="utf-8")
    assert FEW not in page
    with_caution(scores, "few clusters")
    with_caution(audit.inputs["text"], "one speaker")
    page = render([scores, bench, audit], tmp_path / "marked.html").read_text(encoding="utf-8")
    sections = {part.partition('"')[0]: part for part in page.split('<section id="')[1:]}
    marked = {name for name, part in sections.items() if part.count(f'<p class="footnote">{FEW}</p>') == 1}
    assert marked == {"summary", "cost", "provenance"}
    # Of figures, too: a mark that only the pointer shows.
    assert {name for name, part in sections.items() if ONE in part} == {"redundancy", "blocks"}


def spoken(tmp_path, speakers, **options) -> Scores:
    """Two systems on a clip of each of the speakers; the second loses a word of every fourth clip."""
    clips = [(number, speaker) for number, speaker in enumerate(speakers)]
    systems = {
        "full": [output(number, SEVEN, SEVEN if number % 3 else SIX, speaker=speaker) for number, speaker in clips],
        "cut": [output(number, SEVEN, SEVEN if number % 4 else SIX, speaker=speaker) for number, speaker in clips],
    }
    return rescore(evaluation(tmp_path / "out", systems), replicates=50, **options)


@pytest.mark.parametrize(
    ("speakers", "options", "drawn", "words"),
    [
        ([None] * 40, {}, Drawn(clips=40), "40 clips"),
        ([f"s{n // 2}" for n in range(40)], {}, Drawn(speakers=20), "20 speakers"),
        ([f"s{n // 2}" for n in range(40)], {"cluster": "utterance"}, Drawn(clips=40), "40 clips"),
        (["a"] * 40, {}, Drawn(clips=40, caution="one speaker"), "40 clips of one speaker"),
        (["a", "b"] * 20, {}, Drawn(speakers=2, caution="few clusters"), "2 speakers"),
        (["a", "b", *[None] * 38], {}, Drawn(speakers=2, clips=38), "2 speakers and 38 clips that name none"),
    ],
)
def test_scores_say_what_was_drawn(tmp_path, speakers, options, drawn, words):
    scores = spoken(tmp_path, speakers, **options)
    assert scores.drawn == drawn == Units.of(speakers, options.get("cluster", "speaker")).drawn
    lines = [str(line) for line in evaluation_tables.summary(scores)]
    assert f"in brackets: 95% intervals, from resampling {words}" in lines
    assert bool(wording.footnotes("\n".join(lines))) is (drawn.caution is not None)
    page = render([scores], tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"replicates over {words};" in page


def test_files_that_do_not_say_what_was_drawn_have_no_number():
    assert wording.drawn_over(None, "utterance") == "clips"
    assert wording.drawn_over(None, "speaker") == "speakers"


def test_a_verdict_shows_the_mark(tmp_path):
    validation = shoal.validate(["WER<=90%"], [spoken(tmp_path, ["a"] * 40)])
    assert validation.findings[0].shown.endswith("]‡")
    assert ONE in junit(validation)
    assert ONE in junit(shoal.validate(["WER<=0.1%"], [spoken(tmp_path / "again", ["a"] * 40)]))


def test_a_search_marks_its_intervals_in_tables_and_words():
    search = documents.search()
    assert not wording.footnotes("\n".join(map(str, search_command.summary(search))))
    with_caution(search, "few clusters")
    assert wording.footnotes("\n".join(map(str, search_command.summary(search)))) == [FEW]
    told = reason(BY_NAME["WER"], search.budget, search.steps, [], None)
    assert told.endswith("]† on the validation split.")


def test_an_audit_marks_every_interval_and_says_what_was_drawn(tmp_path):
    sums = random_sums(1)
    document = audit_of({"speech": sums})
    measured = document.inputs["speech"]
    assert measured.drawn == Drawn(speakers=4, caution="few clusters")
    lines = [str(line) for line in audit_command.summary(document)]
    assert "  in brackets: 95% intervals, from resampling 4 speakers" in lines
    assert wording.footnotes("\n".join(lines)) == [FEW]
    values = measured.scopes["all"].metrics["angular"]
    assert values.best[0].distance.caution == values.estimate([0]).caution == "few clusters"
    assert shoal.select(document, 1).distance.caution == "few clusters"
    path = save_audit(tmp_path, {"speech": sums, "text": random_sums(2)})
    assert wording.plain(shoal.task_matrix([path], replicates=20).losses[0].loss).endswith("]†")
    many = summarise(random_sums(1, utterances=40), "speech", AuditSettings(replicates=20))
    assert many.drawn == Drawn(speakers=20)
    assert many.scopes["all"].metrics["angular"].best[0].distance.caution is None


def shown(scores: Scores, folder: Path) -> tuple[str, str]:
    """In a terminal, and as a report."""
    lines = evaluation_tables.summary(scores)
    return "\n".join(map(str, lines)), render([scores], folder / "report.html").read_text(encoding="utf-8")


def card_of(scores: Scores) -> str:
    """What a card of the last system says of scores."""
    return results.scores(SimpleNamespace(measured=[Measured(scores, scores.systems[-1])]))


def test_the_design_effect_of_the_headline_is_said_in_plain_words(tmp_path):
    scores = spoken(tmp_path, [f"s{n // 2}" for n in range(40)])
    score = scores.headline_of(scores.systems[0])
    score.design_effect = 2.34
    words = "lips of one speaker are alike: intervals are as wide as with 1/2.3 of the clips (design effect 2.3)"
    assert all(words in text for text in shown(scores, tmp_path))
    score.design_effect = 0.82
    assert all("no more alike than those of several (design effect 0.8)" in text for text in shown(scores, tmp_path))
    score.design_effect = None
    assert not any("design effect" in text for text in shown(scores, tmp_path))


@pytest.mark.parametrize(("differing", "smallest"), [(5, 0.0625), (6, 0.03125)])
def test_a_test_that_cannot_reach_significance_says_so(tmp_path, differing, smallest):
    full = [output(number, SEVEN, SEVEN) for number in range(30)]
    cut = [output(number, SEVEN, SIX if number < differing else SEVEN) for number in range(30)]
    scores = rescore(evaluation(tmp_path / "one", {"full": full, "cut": cut}), replicates=50)
    delta = scores.systems[1].measures["WER"].delta
    # Every one of the clips that differ got worse: there is no smaller p-value.
    assert delta.p_value == delta.smallest_p == smallest
    note = "no p-value can reach 0.05 here: so few speakers (or clips) differ that the smallest possible one is 0.062"
    assert all((note in text) is (differing == 5) for text in (*shown(scores, tmp_path), card_of(scores)))
    # Two tests at their smallest do not pass Holm's correction.
    scores = rescore(evaluation(tmp_path / "two", {"full": full, "cut": cut, "too": cut}), replicates=50)
    words = f"the smallest possible one is {2 * smallest:.2g} after Holm"
    assert all(words in text for text in (*shown(scores, tmp_path), card_of(scores)))


def test_of_groups_only_those_that_are_judged_are_a_family(tmp_path):
    full = [output(number, SEVEN, SEVEN, speaker="ab"[number % 2]) for number in range(60)]
    cut = [output(number, SEVEN, SIX if number < 8 else SEVEN, speaker="ab"[number % 2]) for number in range(60)]
    scores = rescore(evaluation(tmp_path / "out", {"full": full, "cut": cut}), replicates=50)
    page = shown(scores, tmp_path)[1]
    # Four clips of each speaker differ: two tests, each 1/8 at least.
    assert "Worst group by “speaker” (2 groups); no p-value can reach 0.05 here" in page
    assert "the smallest possible one is 0.25 after Holm" in page
