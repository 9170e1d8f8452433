from __future__ import annotations

import math

import plotly.graph_objects as go
import pytest
import report_documents as documents
from hypothesis import given
from hypothesis import strategies as st

from shoal.cli.audit import summary
from shoal.report.by_layer import single_layers
from shoal.report.figure_style import Stretch, stretch_for
from shoal.report.importance import panels
from shoal.report.importance_blocks import best_table, block_figures, rows_of
from shoal.report.task_matrix import wrapped
from shoal.report.trust import by_size, sentences
from shoal.report.units import unit_of
from shoal.schema import Estimate


def test_rates_are_written_in_points_and_losses_as_they_are():
    estimate = Estimate(value=0.018, low=0.004, high=0.031)
    assert unit_of("WER").write(estimate) == "1.8 points of WER [0.4, 3.1]"
    assert unit_of("nats a token").write(estimate) == "0.018 nats a token [0.004, 0.031]"


def test_zero_has_neither_sign_nor_digits():
    assert unit_of("").bare(Estimate(value=0.0, low=-0.1, high=0.2), sign=True) == "0 [−0.10, +0.20]"


def test_even_values_keep_a_plain_axis():
    assert stretch_for([1.0, 2.0, -3.0]).linear is None
    assert Stretch(None).ticks([1.0, 2.0]) == {}


def test_a_towering_value_stretches_the_axis_around_zero():
    stretch = stretch_for([0.01, -0.02, 0.015, 6.0])
    ticks = stretch.ticks([-0.02, 6.0])
    assert "0" in ticks["ticktext"]
    assert "1" in ticks["ticktext"]
    assert ticks["tickvals"] == sorted(ticks["tickvals"])


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_a_stretched_axis_keeps_the_order(a, b):
    stretch = Stretch(0.1)
    assert (stretch(a) <= stretch(b)) == (a <= b) or math.isclose(a, b)


def test_panels_stand_in_the_order_from_measured_to_cheap():
    titles = [title.partition(" (")[0] for title in panels(documents.measured_audit(), "response")]
    assert titles == [
        "Ablation: rise of WER",
        "Ablation: rise of the loss",
        "Gradient: absolute value of each clip",
        "Block influence",
        "Angular distance of the single layer",
    ]


def test_an_audit_without_importance_has_no_panels():
    assert panels(documents.audit(), "response") == {}


def test_a_line_breaks_at_a_refused_layer():
    series = single_layers(documents.importance(refused=17))
    assert dict(series.spread())[17] is None
    assert series.cell(17) == "refused"
    assert 17 not in series.order()


def test_a_candidate_that_a_race_dropped_says_on_how_many_clips():
    series = single_layers(documents.importance())
    assert series.hover(7).endswith("on 12 of 50 clips")
    assert "clips" not in series.hover(8)


def test_only_measured_sizes_become_rows_of_the_heatmap():
    assert list(rows_of(documents.importance(sizes=(1, 4, 8)))) == [1, 4, 8]


def test_single_layers_alone_need_no_heatmap():
    assert block_figures(documents.audit(), 0) == []
    figures = block_figures(documents.measured_audit(), 0)
    assert [figure.title.split()[0] for figure in figures] == ["WER", "Loss"]
    assert all(isinstance(figure.variants[""], go.Figure) for figure in figures)


def said(regret: Estimate, *, picked: int = 12, metric: str = "angular", scope: str = "response") -> str:
    trust = documents.metric_trust(metric, scope, 2, 0.1, 1.0).model_copy(
        update={
            "picked": picked,
            "best": 13,
            "regret": regret,
            "top_k_regret": Estimate(value=0.002, low=0.0, high=0.004),
        }
    )
    return sentences([trust], unit_of("WER"))[0]


def test_a_certain_regret_is_said_with_its_interval_and_what_verifying_leaves():
    assert said(Estimate(value=0.018, low=0.004, high=0.031)) == (
        "Choosing the block of 2 layers by angular distance (scope response) costs 1.8 points of WER [0.4, 3.1] "
        "against the best measured block (layers 13–14); verifying its first 3 choices leaves 0.20 [0, 0.40]."
    )


@pytest.mark.parametrize("low", [0.0, -0.01])
def test_a_regret_that_may_be_zero_cannot_be_told_apart_from_the_best(low):
    text = said(Estimate(value=0.018, low=low, high=0.031))
    assert "cannot be told apart from the best measured block" in text
    assert "costs" not in text


def test_a_regret_without_interval_claims_nothing():
    assert "nobody can tell whether that is chance" in said(Estimate(value=0.018))


def test_a_metric_that_finds_the_best_block_says_so():
    assert "finds the best measured block (layers 13–14) itself; regret 0" in said(
        Estimate(value=0.0, low=0.0, high=0.01), picked=13
    )


def test_the_best_metric_and_the_default_are_both_spoken_of():
    found = by_size(documents.trust())[2]
    first, second = sentences(found, unit_of("nats a token"))
    assert found[0].metric in first
    assert second.startswith("The default: choosing the block of 2 layers by angular distance (scope all)")


def test_metrics_are_sorted_by_regret_within_a_size():
    for found in by_size(documents.trust()).values():
        assert [m.regret.value for m in found] == sorted(m.regret.value for m in found)


def test_labels_are_broken_between_words_and_stay_text():
    assert wrapped("German to English") == "German to<br>English"
    assert wrapped("<b>") == "&lt;b&gt;"


def test_the_best_measured_block_is_shown_with_what_it_loses_on_other_clips():
    audit = documents.measured_audit()
    table = best_table(audit)
    assert [row[2] for row in table.rows if row[:2] == ["speech", "rise of WER (points of WER)"]] == ["1", "2"]
    (row,) = [row for row in table.rows if row[1:3] == ["rise of WER (points of WER)", "2"]]
    assert row[3] == "20–21"
    assert row[4:] == ["+2.7 [+1.8, +3.6]", "+1.8 [+0.9, +2.7]", "80\u202f%", "23"]
    lines = [str(line) for line in summary(audit)]
    assert any(
        "n=2  layers [20, 22)  +2.700 [+1.800, +3.600] points of WER on clips it was not chosen on; the best may also "
        "begin at 23" in line
        for line in lines
    )
    assert best_table(documents.measured_audit(sure=False)) is None
