"""What healing gains: the sentences, the table and the figure, and records of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_documents as documents
from test_report_page import ATTACK, Page, rendered

from shoal.report import figure_style, healing, healing_figure, healing_words
from shoal.report.bundle import collect
from shoal.report.healing_cells import against, by_plan, put_back, told
from shoal.report.parts import Section
from shoal.schema import DataInfo, Delta, Document, Estimate, Healing
from shoal.schema.heal import EDIT_RATE
from shoal.tables import Table

SPACE = "\u202f"


def section(*items: Document) -> Section:
    found = healing.build(collect(items))
    assert found is not None
    return found


def article(document: Healing) -> dict[str, object]:
    return section(document).view["articles"][0]


def table(document: Healing) -> Table:
    found = article(document)["table"]
    assert isinstance(found, Table)
    return found


def column(found: Table, name: str) -> list[str]:
    place = list(found.columns).index(name)
    return [row[place] for row in found.rows]


def bought(value: float, low: float | None, high: float | None) -> Delta:
    return Delta(absolute=Estimate(value=value, low=low, high=high), p_value=0.01)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return rendered(tmp_path_factory.mktemp("healing"), ("healing.json", documents.healing()))


def test_a_report_of_a_healing_alone_says_what_healing_buys(page):
    assert "With 4 of 30 layers gone, healing takes WER from 66.9 % to 41.3 %" in page.text.replace(SPACE, " ")
    assert "Of 4 healed plans, this one removes the most layers" in page.text
    assert "3 speakers of the test clips also spoke clips that were healed on" in page.text
    assert "on 2,000 clips" in page.text
    assert "40 speakers" in page.text


def test_provenance_lists_the_file_its_plans_and_both_sets_of_clips(page):
    assert "shoal heal-sweep pkg:reference" in page.text
    assert "healing.json, to heal" in page.text
    assert "range [24, 28)" in page.text


def test_the_summary_has_intervals_share_and_time():
    first = healing_words.sentences(documents.healing())[0].replace(SPACE, " ")
    assert first == (
        "With 4 of 30 layers gone, joint-decoder healing takes WER from 66.9 % [60.6, 73.2] to 41.3 % [35.0, 47.7], "
        "92 % [80, 104] of what pruning cost, in 4.2 min; linear, without training, takes it to 58.6 % [52.2, 64.9]."
    )


def test_figures_say_on_how_much_was_fitted_and_warn_where_it_was_little():
    grid = documents.healing(sizes=(4,))
    note = "linear over layers 2-5: warning: 472 positions are few for 1,536 unknowns of each output"
    sizes = {"fitted_clips": 6, "fitted_positions": 4720, "notes": [note]}
    grid.cells = [cell.model_copy(update=sizes if cell.target != "none" else {}) for cell in grid.cells]
    assert "in 4.2 min, fitted on 6 clips, 4,720 positions;" in healing_words.sentences(grid)[0].replace(SPACE, " ")
    healed = len(grid.cells) - 1
    assert column(table(grid), "Fitted on").count("6 clips, 4,720 positions") == healed
    assert any(line.endswith(f"{note} ({healed - 1} more like it).") for line in healing_words.limits(collect([grid])))


def test_receiver_and_joint_are_compared_plan_by_plan():
    said = healing_words.sentences(documents.healing(sizes=(4, 12)))[1].replace(SPACE, " ")
    assert said == (
        "Receiver against joint: with 4 layers gone 45.5 % [39.1, 51.8] against 43.3 % [36.9, 49.6], not told apart; "
        "with 12 layers gone 128 % [112, 145] against 113 % [97, 130], joint is lower."
    )


def test_linear_is_compared_with_nothing():
    said = healing_words.sentences(documents.healing(sizes=(2, 4)))[2]
    assert said == (
        "Linear, a fit without training, against no healing: with 2 layers gone −1.83 points [−4.73, +1.07], not "
        "told apart; with 4 layers gone −8.3 points [−11.7, −5.0]."
    )


def test_comparisons_without_their_cells_are_left_out():
    assert len(healing_words.sentences(documents.healing(targets=("none", "joint", "linear")))) == 2
    assert len(healing_words.sentences(documents.healing(targets=("none", "joint")))) == 1


@pytest.mark.parametrize(
    ("change", "said", "verdict"),
    [
        (bought(-0.2, -0.3, -0.1), "joint healing takes WER from 66.9 %", "healing takes WER"),
        (bought(-0.2, -0.5, 0.1), "healing by joint is not told apart from none", "healing is not shown"),
        (bought(-0.2, -0.5, 0.0), "healing by joint is not told apart from none", "healing is not shown"),
        (bought(0.2, 0.1, 0.3), "healing by joint raises WER", "healing is not shown"),
        (bought(-0.2, None, None), "nobody can tell whether that is chance", "healing is not shown"),
        (None, "nobody can tell whether that is chance", "healing is not shown"),
    ],
)
def test_no_more_is_said_than_the_interval_allows(change, said, verdict):
    cells = [documents.healing_cell(4, "none"), documents.healing_cell(4, "joint", bought=change)]
    document = documents.healing(cells=cells)
    assert said in healing_words.sentences(document)[0].replace(SPACE, " ")
    assert verdict in healing_words.headline_words(document)[0]


def test_without_the_unhealed_model_nothing_is_said_of_a_gain():
    document = documents.healing(targets=("joint",))
    assert "without healing it was not measured" in healing_words.sentences(document)[0]
    assert "not shown to help" in healing_words.headline_words(document)[0]


def test_only_unhealed_models(tmp_path):
    document = documents.healing(targets=("none",))
    page = rendered(tmp_path, document)
    assert "What healing gains was not measured" in page.text
    assert "Nothing was healed: WER is 45.2" in page.text
    assert column(table(document), "Against the best target") == ["–"] * 4
    assert not table(document).highlight


def test_no_cells_at_all(tmp_path):
    page = rendered(tmp_path, documents.healing(cells=[]))
    assert "the document holds no models" in page.text
    assert "healing-0-figure" not in {a.get("id") for a in page.all("div")}


def test_the_table_is_sorted_by_n_then_rate_and_marks_the_best():
    found = table(documents.healing())
    sizes = [int(n) for n in column(found, "n")]
    assert sizes == sorted(sizes)
    assert len(found.rows) == 36
    assert found.highlight == {0, 9, 18, 27}
    assert {column(found, "Against the best target")[place] for place in found.highlight} == {"best"}
    assert column(found, "Layers removed")[9] == "24–27"
    assert column(found, "What is trained")[9] == "LoRA on all decoder layers, and the projector"


def test_a_row_says_what_it_cost_and_a_fit_has_no_steps():
    found = table(documents.healing(sizes=(4,)))
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    linear, none = rows["contiguous-4, linear"], rows["contiguous-4, not healed"]
    assert (linear["Steps"], linear["Time"], linear["Parameters trained"]) == (
        "none, a fit",
        f"9{SPACE}s",
        "884,736",
    )
    assert (none["Steps"], none["p"], none["Gain from healing"]) == ("–", "–", "–")
    assert none["Against the best target"] == "higher"
    assert rows["contiguous-4, joint"]["Against the best target"] == "not told apart"


def test_a_target_that_puts_a_layer_back_is_marked():
    document = documents.healing(sizes=(4,))
    found = table(document)
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    assert rows["contiguous-4, replace"]["What is trained"].endswith("(puts one layer back for each block)")
    assert (rows["contiguous-4, replace"]["Layers left"], rows["contiguous-4, joint"]["Layers left"]) == (
        "27",
        "26",
    )
    assert "replace puts one layer back for each block" in healing_words.sentences(document)[-1]
    assert [cell.target for cell in document.cells if put_back(cell)] == ["replace"]


def test_missing_intervals_and_shares_are_shown_as_missing(tmp_path):
    document = documents.healing(sure=False)
    document.cells[1].recovered = None
    page = rendered(tmp_path, document)
    assert "(no interval)" in page.text
    assert "without intervals nobody can tell" in page.text
    assert set(column(table(document), "Against the best target")) == {"best", "–"}
    assert "–" in column(table(document), "Share recovered")


def test_rates_far_above_one_get_a_logarithmic_axis():
    document = documents.healing()
    figure = healing_figure.figure(document, "g")
    assert (figure.shown, set(figure.variants)) == ("log", {"linear", "log"})
    assert f"above 150{SPACE}%" in figure.caption
    assert figure.variants["linear"].layout.yaxis.range == (0, 150)
    mild = healing_figure.figure(documents.healing(sizes=(2, 4)), "g")
    assert mild.shown == "linear"
    assert "above" not in mild.caption


def test_a_rate_of_zero_keeps_the_axis_linear_and_clipped():
    document = documents.healing()
    document.cells[0].score.value = Estimate(value=0.0, low=0.0, high=0.01)
    figure = healing_figure.figure(document, "g")
    assert set(figure.variants) == {"linear"}
    assert "the table has all" in figure.caption


def test_each_target_has_its_own_line_beside_the_others():
    plot = healing_figure.figure(documents.healing(), "g").variants["log"]
    marks = {trace.name: trace for trace in plot.data if trace.mode == "markers"}
    assert next(iter(marks)) == "not healed"
    assert len({trace.x[0] for trace in marks.values()}) == len(marks) == 9
    assert all(abs(x - n) < 0.7 for trace in marks.values() for x, n in zip(trace.x, (2, 4, 8, 12), strict=True))
    assert marks["joint"].error_y.array[0] > 0
    assert len({(colour, symbol) for colour, symbol, _ in figure_style.TARGETS.values()}) == len(figure_style.TARGETS)


def test_one_target_and_one_plan_are_drawn():
    figure = healing_figure.figure(documents.healing(sizes=(4,), targets=("none", "joint")), "g")
    assert figure.variants["linear"].layout.xaxis.range == (3.5, 4.5)


def test_plans_of_one_size_stay_apart():
    other = documents.plan("greedy", [3, 9, 14, 22])
    cells = [documents.healing_cell(4, name) for name in ("none", "receiver", "joint")]
    cells += [cell.model_copy(update={"plan": other}) for cell in cells]
    document = documents.healing(cells=cells)
    assert [(group.plan.strategy, len(group.cells)) for group in by_plan(document)] == [
        ("contiguous", 3),
        ("greedy", 3),
    ]
    assert "(greedy: layers 3, 9, 14, 22)" in healing_words.sentences(document)[1]
    assert len(table(document).highlight) == 2


def test_two_targets_are_told_apart_only_where_their_intervals_do_not_overlap():
    first, second = (documents.healing_cell(4, name) for name in ("receiver", "joint"))
    first.bought, second.bought = bought(-0.1, -0.15, -0.05), bought(-0.2, -0.25, -0.16)
    assert (against(first, second), against(second, first)) == ("higher", "lower")
    second.bought = bought(-0.2, -0.25, -0.15)
    assert against(first, second) == "alike"
    assert against(first, documents.healing_cell(4, "none")) == told(first) == "lower"


def test_an_edit_rate_of_another_task_is_not_called_wer():
    found = article(documents.healing(task="ast", score_name=EDIT_RATE))
    assert "WER" not in json.dumps([found["sentences"], found["lead"], found["figure"].caption])
    assert "edits against the reference" in str(found["lead"])


def test_a_score_that_rises_with_healing_is_told_the_right_way_round():
    document = documents.healing(sizes=(4,), targets=("none", "receiver", "joint"), score_name="BLEU")
    scores = {"none": 12.0, "receiver": 20.0, "joint": 26.0}
    document.baseline.value = Estimate(value=30.0)
    for cell in document.cells:
        cell.score = cell.score.model_copy(
            update={"value": Estimate(value=scores[cell.target]), "higher_is_better": True, "fraction": False}
        )
        if cell.target != "none":
            gain = scores[cell.target] - 12.0
            cell.bought = bought(gain, gain - 1, gain + 1)
    document.baseline = document.baseline.model_copy(update={"higher_is_better": True, "fraction": False})
    (group,) = by_plan(document)
    assert [cell.target for cell in group.cells] == ["joint", "receiver", "none"]
    first, receiver_or_joint = healing_words.sentences(document)[:2]
    assert "joint healing takes BLEU from 12.0 (no interval) to 26.0 (no interval)" in first
    assert receiver_or_joint.endswith("receiver is lower.")
    assert set(healing_figure.figure(document, "g").variants) == {"linear"}


def test_what_a_healing_does_not_record_is_said(tmp_path):
    same = documents.data(fingerprint="aa" * 32)
    document = documents.healing(settings={}, data=same, train_data=same)
    page = rendered(tmp_path, document)
    assert "speakers that were also healed on is not recorded" in page.text
    assert "healed on the clips they were tested on" in page.text


def test_a_poor_baseline_is_pointed_out(tmp_path):
    document = documents.healing(baseline=documents.healed_score(Estimate(value=0.6, low=0.55, high=0.65)))
    assert "already has a WER of 60.0" in rendered(tmp_path, document).text


def test_scores_lead_where_there_are_both(tmp_path):
    page = rendered(tmp_path, documents.scores(data=documents.data(clips=400)), documents.healing())
    assert "2 of 30 decoder layers can go" in page.text
    assert "what healing wins back is under Healing" in page.text
    assert "of what pruning cost, won back" in page.text


def test_text_from_a_healing_stays_text(tmp_path):
    document = documents.healing(settings={ATTACK: {ATTACK: [ATTACK]}}, task=ATTACK)
    document.cells[1].target = ATTACK
    record = documents.heal_record(target=ATTACK, notes=[ATTACK], task=ATTACK)
    trained = documents.training_record(recipe={"encoder": ATTACK}, notes=[ATTACK])
    page = rendered(tmp_path, (ATTACK, document), (ATTACK, record), (ATTACK, trained))
    assert not page.all("img")
    assert "alert(1)" in page.text
    assert len([a for a in page.all("script") if a.get("type") != "application/json"]) == 2


def test_records_alone_make_a_report(tmp_path):
    page = rendered(tmp_path, ("heal.json", documents.heal_record()), documents.training_record())
    text = page.text.replace(SPACE, " ")
    assert "Healing pruned by joint set 8.05 M parameters in 1.5 min" in text
    assert "the loss went from 2.346 to 1.200 nats a token" in text
    assert "2 stages in 32.7 min and 5.2 min to encode clips, on 5,050 clips (5.6 h) of 2 sources." in text
    assert "0.812 on dev.jsonl (asr) and 0.400 on digits.jsonl (asr)" in text
    assert "memory ran out once" in text
    assert "heal.json, to heal" in text
    assert "training, to train" in text
    assert "hold losses only" in text
    assert "Languages of the clips: en" in text


def test_a_training_alone_has_a_title_and_no_figures(tmp_path: Path):
    page = rendered(tmp_path, documents.training_record(validation=[], data=[], encode_seconds=0.0))
    assert "How was it trained?" in page.text
    assert "No loss on other clips was measured." in page.text
    assert not page.all("figure")


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([(2.0, 1.0)], "the loss went from 2.000 to 1.000"),
        ([(None, None)], "What it did to the loss was not measured."),
        (
            [(2.0, 1.0), (2.0, 2.5), (None, None)],
            "3 healed models: the loss fell in 1 of the 2 that measured it",
        ),
        ([(None, None)] * 2, "2 healed models: none measured a loss"),
    ],
)
def test_losses_of_healed_models_are_summed_up(tmp_path, losses, said):
    records = [documents.heal_record(loss_before=before, loss_after=after) for before, after in losses]
    assert said in rendered(tmp_path, *records).text


def test_a_closed_form_has_no_steps(tmp_path):
    record = documents.heal_record(target="linear", steps=0, clips=0, data=DataInfo(manifests=[], clips=9, seconds=1))
    assert "none, a fit" in rendered(tmp_path, record).text
