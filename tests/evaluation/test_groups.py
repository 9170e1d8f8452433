"""Groups: the worst, the one that lost most, data sets in and out of domain."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from scipy import stats

from shoal.data import Row
from shoal.errors import UsageError
from shoal.evaluation.groups import MIN_GROUP_CLIPS, check_fields
from shoal.evaluation.significance import PairedBootstrap
from shoal.settings import Intervals
from stored_outputs import by_id, output, summary

SEVEN = "alpha beta gamma delta sigma kappa omega"
SIX = "alpha beta gamma delta sigma kappa"


def rows(size, *, first=0, text=SEVEN, said=SEVEN, **fields):
    return [output(first + n, text, said, **fields) for n in range(size)]


def test_the_group_that_lost_most_is_named_though_the_average_improved():
    before = by_id(rows(40, said=SIX, accent="many") + rows(20, first=50, accent="few"))
    after = by_id(rows(40, accent="many") + rows(20, first=50, said=SIX, accent="few"))
    system = summary(before, after, group_by=["accent"]).systems[1]
    assert system.measures["WER"].delta.absolute.value == pytest.approx(-20 / (60 * 7))
    assert system.most_worsened == {"accent": "few"}
    change = system.groups["accent"]["few"].measures["WER"].delta
    assert change.absolute.value == pytest.approx(1 / 7)
    assert change.p_holm == pytest.approx(min(1, 2 * change.p_value))


def test_the_worst_and_the_one_that_lost_most_may_be_two_groups():
    base = rows(20, said="", sex="f") + rows(20, first=30, sex="m")
    cut = rows(20, said="", sex="f") + rows(20, first=30, said=SIX, sex="m")
    system = summary(by_id(base), by_id(cut), group_by=["sex"]).systems[1]
    assert system.worst_group == {"sex": "f"}
    assert system.most_worsened == {"sex": "m"}


def test_no_group_is_named_where_none_lost():
    same = by_id(rows(20, sex="f", said=SIX) + rows(20, first=30, sex="m"))
    systems = summary(same, same, group_by=["sex"]).systems
    assert systems[0].most_worsened == systems[1].most_worsened == {}
    assert systems[1].worst_group == {"sex": "f"}


def emotions(wrong, sex, first, size=40):
    """Alternating labels, the first `wrong` of them missed."""
    labels = ["happy", "sad"]
    return [
        output(first + n, labels[n % 2], labels[(n + 1) % 2] if n < wrong else labels[n % 2], sex=sex)
        for n in range(size)
    ]


def test_less_is_worse_where_more_is_better():
    base = by_id(emotions(4, "f", 0) + emotions(10, "m", 50))
    cut = by_id(emotions(20, "f", 0) + emotions(12, "m", 50))
    first, second = summary(base, cut, task="ser", group_by=["sex"]).systems
    assert first.worst_group == {"sex": "m"}
    assert second.worst_group == {"sex": "f"}
    assert second.most_worsened == {"sex": "f"}
    found = second.groups["sex"]["f"].measures["accuracy"]
    assert found.value.value == 0.5
    assert found.delta.absolute.value == pytest.approx(-0.4)
    assert found.delta.absolute.low <= -0.4 <= found.delta.absolute.high < 0


def test_translations_are_scored_by_group_as_sacrebleu_scores_them():
    draw = random.Random(0)
    words = SEVEN.split()
    texts = [" ".join(draw.choices(words, k=9)) for _ in range(24)]
    said = [" ".join(draw.choice(words) if draw.random() < 0.3 else word for word in text.split()) for text in texts]
    outputs = by_id([output(n, texts[n], said[n], speaker=f"s{n % 2}") for n in range(24)])
    groups = summary(outputs, task="ast").systems[0].groups["speaker"]
    for place, name in enumerate(["s0", "s1"]):
        wanted, found = texts[place::2], groups[name].measures
        assert found["BLEU"].value.value == pytest.approx(sacrebleu.corpus_bleu(said[place::2], [wanted]).score)
        assert found["chrF"].value.value == pytest.approx(sacrebleu.corpus_chrf(said[place::2], [wanted]).score)


def sets():
    books = rows(6, said=SIX, data="books")
    calls = rows(6, first=10, said="alpha beta", data="calls")
    return [*books, *calls, *rows(6, first=20, said="alpha", data="talks")]


def test_several_data_sets_are_told_apart_without_being_asked():
    system = summary(by_id(sets())).systems[0]
    assert {name: score.measures["WER"].value.value for name, score in system.groups["data"].items()} == {
        "books": pytest.approx(1 / 7),
        "calls": pytest.approx(5 / 7),
        "talks": pytest.approx(6 / 7),
    }
    assert summary(by_id(sets()), group_by=[]).systems[0].groups == {}
    assert set(summary(by_id(rows(6, data="one"))).systems[0].groups) == set()


def test_sets_out_of_domain_are_pooled():
    found = summary(by_id(sets()), out_of_domain=["calls", "talks"])
    pooled = found.systems[0].groups["domain"]
    assert found.out_of_domain == ["calls", "talks"]
    assert pooled["in"].measures["WER"].value.value == pytest.approx(1 / 7)
    assert pooled["out"].measures["WER"].value.value == pytest.approx(11 / 14)
    assert pooled["out"].clips == 12
    assert "domain" not in found.systems[0].worst_group


def test_an_unknown_set_out_of_domain_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"no clip is of the data set 'radio'.*books, calls, talks"):
        summary(by_id(sets()), out_of_domain=["radio"])
    with pytest.raises(UsageError, match="do not say their data set"):
        summary(by_id(rows(6)), out_of_domain=["radio"])


def test_many_ages_become_bands_of_ten_years():
    ages = [19, "20", 24.5, 29, 30, 31, 42, 43, 44, 57, 68]
    found = by_id([output(n, SEVEN, SEVEN, age=age) for n, age in enumerate(ages)])
    groups = summary(found, group_by=["age"]).systems[0].groups["age"]
    assert {band: score.clips for band, score in groups.items()} == {
        "10-19": 1,
        "20-29": 3,
        "30-39": 2,
        "40-49": 3,
        "50-59": 1,
        "60-69": 1,
    }


@pytest.mark.parametrize("ages", [[20, 30, 30], ["twenties", *range(20, 40)]])
def test_few_ages_and_words_for_ages_stay_as_they_are(ages):
    found = by_id([output(n, SEVEN, SEVEN, age=age) for n, age in enumerate(ages)])
    groups = summary(found, group_by=["age"]).systems[0].groups["age"]
    assert set(groups) == {str(age) for age in ages}


def test_numbers_that_are_no_ages_are_names():
    found = by_id([output(n, SEVEN, SEVEN, speaker=str(1000 + n)) for n in range(12)])
    assert "1003" in summary(found).systems[0].groups["speaker"]


def test_an_unknown_field_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"no clip has the field 'room'.*accent, data, lang, speaker"):
        summary(by_id(rows(6, accent="x")), group_by=["room"])


def rate_and_error(drawn):
    """Errors over words of clusters, and its linearised standard error."""
    errors, words = (sum(column) for column in zip(*drawn, strict=True))
    squares = sum((wrong - errors / words * length) ** 2 for wrong, length in drawn)
    return errors / words, math.sqrt(len(drawn) / (len(drawn) - 1) * squares) / words


@pytest.mark.parametrize("cluster", ["utterance", "speaker"])
def test_a_groups_interval_is_that_of_drawing_its_clips_again(cluster):
    draw = random.Random(1)
    texts = [(SEVEN, " ".join(SEVEN.split()[: draw.randint(2, 7)]), f"s{n % 6}") for n in range(30)]
    outputs = [output(n, text, said, sex="f", speaker=who) for n, (text, said, who) in enumerate(texts)]
    scores = summary(by_id(outputs), group_by=["sex"], replicates=200, cluster=cluster)
    estimate = scores.systems[0].groups["sex"]["f"].measures["WER"].value
    resampler = PairedBootstrap.of(
        Intervals(replicates=200, cluster=cluster), [clip.speaker for clip in outputs]
    ).resampler
    clusters = [[0, 0] for _ in range(resampler.clusters)]
    for clip, group in zip(outputs, resampler.groups, strict=True):
        clusters[group][0] += 7 - len(clip.pred_text.split())
        clusters[group][1] += 7
    value, error = rate_and_error(clusters)
    distances = []
    for weights in resampler.weights.tolist():
        drawn = [one for one, times in zip(clusters, weights, strict=True) for _ in range(times)]
        rate, spread = rate_and_error(drawn)
        distances.append((rate - value) / max(spread, error / math.sqrt(len(clusters))))
    student = stats.t.ppf(0.975, len(clusters) - 1)
    low, high = np.quantile(distances, [0.025, 0.975])
    low, high = min(low, -student), max(high, student)
    assert (estimate.low, estimate.high) == pytest.approx((max(0, value - high * error), value - low * error), rel=1e-6)
    assert estimate.caution == ("few clusters" if cluster == "speaker" else None)


def test_families_of_plans_are_corrected_together():
    full = by_id(rows(30))
    draw = random.Random(5)

    def worse(chance):
        return by_id([output(n, SEVEN, SIX if draw.random() < chance else SEVEN) for n in range(30)])

    systems = summary(full, worse(0.1), worse(0.2), worse(0.9)).systems
    raw = [system.measures["WER"].delta.p_value for system in systems[1:]]
    assert systems[0].measures["WER"].delta is None
    ordered = sorted(raw)
    expected = [max(min(1, (3 - place) * ordered[place]) for place in range(rank + 1)) for rank in range(3)]
    assert sorted(system.measures["WER"].delta.p_holm for system in systems[1:]) == pytest.approx(expected)


def test_every_measure_is_corrected_over_the_plans():
    full, cut = by_id(emotions(2, "f", 0)), by_id(emotions(9, "f", 0))
    systems = summary(full, cut, cut, task="ser").systems
    for name in ("accuracy", "UAR", "macro-F1"):
        delta = systems[1].measures[name].delta
        assert delta.p_holm == pytest.approx(min(1, 2 * delta.p_value))


def test_small_groups_are_scored_and_not_named():
    few = rows(MIN_GROUP_CLIPS - 1, said="", sex="x")
    found = by_id(few + rows(20, first=30, sex="f") + rows(20, first=60, sex="m", said=SIX))
    system = summary(found, group_by=["sex"]).systems[0]
    assert system.groups["sex"]["x"].measures["WER"].value.value == 1
    assert system.worst_group == {"sex": "m"}


def test_a_field_that_no_row_has_is_refused_before_anything_is_decoded():
    rows = [Row(id=f"{n}", audio=Path("a.wav"), duration=1.0, fields={"accent": a}) for n, a in enumerate("xy")]
    check_fields(["accent", "speaker", "data"], rows)
    check_fields(None, iter(()))
    with pytest.raises(UsageError, match=r"no clip has the field 'sex'.*accent"):
        check_fields(["accent", "sex"], rows)
