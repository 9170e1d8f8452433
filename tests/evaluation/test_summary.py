"""From outputs to scores: groups, examples, scripts without spaces, empty references."""

from __future__ import annotations

import pytest
import sacrebleu

from shoal import tasks
from shoal.errors import ManifestError
from shoal.evaluation.score_systems import EXAMPLES, SystemIdentity, score_systems
from shoal.evaluation.settings import ScoringSettings
from stored_outputs import output


def scored(*systems, **options):
    """Summarise systems given as lists of outputs."""
    found = [{each.id: each for each in outputs} for outputs in systems]
    names = [SystemIdentity(f"system{place}") for place in range(len(systems))]
    return score_systems(
        names,
        found,
        list(found[0]),
        tasks.get(options.get("task", "asr")),
        ScoringSettings(replicates=50, group_by=options.get("group_by")),
    )


def test_empty_references_are_counted_apart():
    """Three clips of which two are such have the error rates of the third."""
    third = output(2, "two of three words", "two of four words")
    empty = [output(0, "[noise]", "hello there"), output(1, "hmm", "so it is")]
    system, alone = scored([*empty, third]).systems[0], scored([third]).systems[0]
    assert system.empty_references == 2
    assert system.words_without_reference == 5
    assert system.measures["WER"].edits.insertions == 0
    assert {name: score.value.value for name, score in system.measures.items()} == {
        name: score.value.value for name, score in alone.measures.items()
    }
    assert system.measures["WER"].value.value == 0.25
    assert list(system.measures) == ["WER", "CER", "compound WER"]


def test_no_reference_word_is_a_manifest_problem():
    with pytest.raises(ManifestError, match="no reference has a word"):
        scored([output(0, "[noise]", "hello")])
    with pytest.raises(ManifestError, match="no clip"):
        scored([])


def test_text_is_normalised_before_it_is_compared():
    assert scored([output(0, "Mr. Smith won't PAY $5!", "mister smith will not pay 5 dollars")]).systems[0].measures[
        "WER"
    ].value.value == pytest.approx(0)


def test_scripts_without_spaces_are_scored_by_character():
    summary = scored([output(0, "今天天气", "今天气", lang="zh")])
    assert summary.systems[0].measures["WER"].value.value == 0.25
    assert "zh" in summary.scorer


def test_all_normalisers_are_named():
    summary = scored([output(0, "one", "one"), output(1, "eins", "eins", lang="de")])
    assert len(summary.normaliser.split(", ")) == 2


def test_the_worst_group_is_large_enough_to_judge():
    words = "alpha beta gamma delta sigma kappa omega"
    rows = [output(n, words, words, speaker="good") for n in range(20)]
    rows += [output(30 + n, words, "alpha beta", speaker="bad") for n in range(20)]
    rows += [output(60, words, "", speaker="tiny")]
    system = scored(rows).systems[0]
    assert set(system.groups["speaker"]) == {"good", "bad", "tiny"}
    assert system.groups["speaker"]["tiny"].measures["WER"].value.value == 1.0
    assert system.worst_group == {"speaker": "bad"}


def test_clips_without_the_field_are_in_no_group():
    rows = [output(0, "a b", "a b", accent=0), output(1, "a b", "a", accent=0), output(2, "a b", "a")]
    groups = scored(rows, group_by=["accent"]).systems[0].groups["accent"]
    assert {value: score.clips for value, score in groups.items()} == {"0": 2}


def test_a_group_without_reference_words_has_no_score():
    rows = [output(0, "a b", "a b", room="x"), output(1, "[noise]", "hm", room="y")]
    assert list(scored(rows, group_by=["room"]).systems[0].groups["room"]) == ["x"]


def test_examples_span_from_agreement_to_difference():
    texts = [f"alpha beta gamma delta {n}" for n in range(40)]
    same = [output(n, text, text) for n, text in enumerate(texts)]
    worse = [output(n, text, text if n < 30 else "") for n, text in enumerate(texts)]
    examples = scored(same, worse).examples
    assert len(examples) == EXAMPLES
    assert examples[0].outputs["system0"] == examples[0].outputs["system1"]
    assert examples[-1].outputs["system1"] == ""


def test_the_order_of_clips_does_not_matter():
    rows = [output(n, "a b c", "a b" if n % 3 else "a x c") for n in range(12)]
    assert scored(rows).systems == scored(rows[::-1]).systems


def test_recognition_has_its_error_rates_as_measures():
    system = scored([output(0, "a b", "a b")]).systems[0]
    assert list(system.measures) == ["WER", "CER", "compound WER"]
    assert [score.edits is None for score in system.measures.values()] == [False, False, True]


def test_a_translation_is_scored_as_sacrebleu_scores_it_with_case_and_punctuation():
    texts = [f"The {word} sat on the mat, then it ran." for word in ("cat", "dog", "cow", "hen", "owl")]
    said = [text.replace("sat on", "lay upon") if place % 2 else text for place, text in enumerate(texts)]
    full = [output(n, text, text) for n, text in enumerate(texts)]
    cut = [output(n, text, one) for n, (text, one) in enumerate(zip(texts, said, strict=True))]
    summary = scored(full, cut, task="ast")
    best, worse = (system.measures for system in summary.systems)
    assert list(worse) == ["BLEU", "chrF"]
    assert worse["BLEU"].value.value == pytest.approx(sacrebleu.corpus_bleu(said, [texts]).score, rel=1e-12)
    assert worse["chrF"].value.value == pytest.approx(sacrebleu.corpus_chrf(said, [texts]).score, rel=1e-12)
    assert best["BLEU"].delta is None
    delta = worse["BLEU"].delta
    assert delta.absolute.value == pytest.approx(worse["BLEU"].value.value - 100)
    assert delta.relative.value == pytest.approx(worse["BLEU"].value.value / 100 - 1)
    assert delta.absolute.low <= delta.absolute.value <= delta.absolute.high
    assert worse["BLEU"].higher_is_better
    assert not worse["BLEU"].fraction
    assert "nrefs:1" in worse["BLEU"].signature
    assert summary.normaliser.startswith("none ")


def test_emotions_are_scored_as_labels():
    rows = [output(n, "happy", "Happy.") for n in range(6)] + [
        output(6, "sad", "happy"),
        output(7, "sad", "Sad"),
    ]
    measures = scored(rows, task="ser").systems[0].measures
    values = {name: score.value.value for name, score in measures.items()}
    f1 = (2 * 6 / (6 + 7) + 2 * 1 / (2 + 1)) / 2
    assert values == {"accuracy": 7 / 8, "UAR": 0.75, "macro-F1": pytest.approx(f1)}


def test_the_order_of_clips_does_not_matter_to_measures():
    rows = [output(n, "a b c d e", "a b c d e" if n % 3 else "a x c") for n in range(12)]
    assert scored(rows, task="ast").systems == scored(rows[::-1], task="ast").systems


def test_references_in_which_a_score_finds_nothing_are_a_manifest_problem():
    with pytest.raises(ManifestError, match="BLEU finds nothing"):
        scored([output(0, "<skipped>", "hello")], task="ast")
