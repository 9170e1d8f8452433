from __future__ import annotations

import json
from itertools import product

import plotly.graph_objects as go
import pytest
import report_documents as documents
from hypothesis import given
from hypothesis import strategies as st

from shoal import wording
from shoal.report import heatmaps
from shoal.report.affordable import Candidate, candidates, deepest
from shoal.report.bundle import collect
from shoal.report.comparison import chance_overlap
from shoal.report.parts import Figure
from shoal.report.word_diff import align, error_count, tokens
from shoal.schema import Estimate


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(value=0.1213, low=0.1, high=0.15), "12.1\u202f% [10.0, 15.0]"),
        (Estimate(value=0.0213, low=0.01, high=0.034), "2.13\u202f% [1.00, 3.40]"),
        (Estimate(value=1.2), "120\u202f% (no interval)"),
        (None, "not measured"),
    ],
)
def test_a_share_is_written_with_its_interval(estimate, text):
    assert wording.percent_estimate(estimate) == text


def test_changes_have_a_sign_and_zero_has_no_minus():
    assert wording.relative_change(Estimate(value=-0.031, low=-0.2, high=0.1)) == "−3.1\u202f% [−20.0, +10.0]"
    assert wording.fixed(-0.0001, 2) == "0.00"


def test_layers_are_named_as_ranges():
    assert wording.layer_names([3, 4, 5, 9]) == "layers 3–5, 9"
    assert wording.half_open([3, 4, 5, 9]) == "[3, 6) ∪ [9, 10)"
    assert wording.layer_names([7]) == "layer 7"


def test_a_grid_is_empty_outside_the_triangle():
    assert heatmaps.to_grid([[1.0, 2.0], [3.0]]) == [[1.0, 2.0], [3.0, None]]


def test_normalised_rows_reach_from_zero_to_one():
    assert heatmaps.row_normalised([[2.0, 4.0, 3.0], [5.0, 5.0], [1.0]]) == [
        [0.0, 1.0, 0.5],
        [0.0, 0.0],
        [0.0],
    ]


def test_the_difference_is_speech_minus_text():
    assert heatmaps.difference([[3.0]], [[1.0]]) == [[2.0]]


def test_chance_overlap_equals_counting_all_pairs():
    depth, n = 7, 3
    starts = range(depth - n + 1)
    shared = [len({*range(a, a + n)} & {*range(b, b + n)}) / n for a, b in product(starts, starts)]
    assert chance_overlap(depth, n) == pytest.approx(sum(shared) / len(shared))
    assert chance_overlap(depth, depth) == 1.0


def test_differences_are_blind_to_case_and_punctuation():
    assert [word.operation for word in align("hello, world", "Hello world.")] == ["same", "same"]


@pytest.mark.parametrize(
    ("output", "operation", "said", "written"),
    [
        ("press the old key", "inserted", "", "old"),
        ("press key", "deleted", "the", ""),
        ("press the keys", "substituted", "key", "keys"),
    ],
)
def test_each_kind_of_error_is_marked(output, operation, said, written):
    wrong = [word for word in align("press the key", output) if word.operation != "same"]
    assert [(w.operation, w.reference, w.output) for w in wrong] == [(operation, said, written)]


def test_characters_stand_alone_where_words_have_no_spaces():
    assert tokens("你好 world") == ["你", "好", "world"]


def test_an_empty_output_is_all_missing():
    assert {word.operation for word in align("one two", "")} == {"deleted"}
    assert align("", "") == []


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_word_of_either_text_is_lost(reference, output):
    words = align(reference, output)
    assert [w.reference for w in words if w.reference] == tokens(reference)
    assert [w.output for w in words if w.output] == tokens(output)


def _edits(a: list[str], b: list[str]) -> int:
    """Levenshtein distance, written out."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_alignment_is_a_shortest_one(reference, output):
    assert error_count(align(" ".join(reference), " ".join(output))) == _edits(reference, output)


def test_a_figure_leaves_no_markup_in_its_script():
    figure = go.Figure().add_scatter(x=[1], y=[1], name="</script><b>")
    payload = Figure("id", "title", "caption", {"a": figure, "b": "note </script>"}, default="b").payload
    assert "<" not in payload
    assert json.loads(payload)["variants"]["b"] == {"note": "note </script>"}
    assert json.loads(payload)["variants"]["a"]["data"][0]["name"] == "</script><b>"


def pruned(name: str, scores=None) -> list[Candidate]:
    known = candidates(collect([scores or documents.scores()]))
    return [candidate for candidate in known if candidate.first.name == name]


def test_the_headline_prefers_a_whole_interval_within_the_limit():
    found = deepest(candidates(collect([documents.scores(data=documents.data(clips=400))])))
    assert found is not None
    assert (found.first.name, found.certain) == ("contiguous-2", True)


def test_the_headline_hedges_when_only_the_value_is_within_the_limit():
    found = deepest(pruned("random-1"))
    assert found is not None
    assert not found.certain


def test_no_plan_is_affordable_when_all_are_dear():
    assert deepest(pruned("random-8")) is None


def test_the_headline_prefers_whole_layers_to_parts_of_more():
    scores = documents.scores()
    for system in scores.systems:
        if system.name == "contiguous-2":
            system.plan.part = "mlp"
    found = deepest([*pruned("contiguous-2", scores), *pruned("contiguous-1", scores)])
    assert found is not None
    assert found.first.name == "contiguous-1"


def test_a_fall_is_the_loss_of_a_score_of_which_more_is_better():
    scores = documents.translation_scores()
    score = scores.headline_of(scores.systems[3])
    assert score is not None
    assert score.worsening is not None
    assert score.delta is not None
    assert score.delta.relative is not None
    assert score.worsening.value == -score.delta.relative.value > 0
    assert score.worsening.high == -score.delta.relative.low


def test_plans_given_found_scored_and_healed_are_listed_once():
    plans = collect(documents.everything()).all_plans
    assert len(plans) == len(documents.PLANS) + 1 + len(documents.UNHEALED)
    assert documents.search().chosen.layers in [plan.layers for plan in plans]


def test_the_scope_of_the_plans_is_shown_first():
    assert collect([documents.audit(), documents.plan()]).preferred_scope == "response"
