"""The search from clips to a confirmed plan, on a tiny random SpeechLLM."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from shoal import tasks
from shoal.data import read_manifests
from shoal.errors import ManifestError, UsageError
from shoal.evaluation import evaluate
from shoal.evaluation.system_outputs import read_outputs
from shoal.measurement.ablation import LossMeasure
from shoal.measurement.metric_types import ImportanceRequest
from shoal.plan_search.run import SearchRun, search
from shoal.plan_search.words import how_sure
from shoal.schema import Plan, Search
from tiny_speech import dataset, loaded, write_clips

FEW = {"replicates": 99, "max_new_tokens": 8}
HUGE = 1000.0


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "clips", 8)


def answered(model, folder, task="asr", field="text", more=" and more"):
    """Clips whose right answer is what the unpruned model says, and a little more."""
    rows = [json.loads(line) for line in write_clips(folder, 8).read_text().splitlines()]
    manifest = folder / "answered.jsonl"

    def write(answers):
        lines = [json.dumps({**row, field: answer}) for row, answer in zip(rows, answers, strict=True)]
        manifest.write_text("\n".join(lines) + "\n")
        return read_manifests([str(manifest)], needs_text=False)

    scores = evaluate(model, write(["x"] * 8), task, out=folder / "said", replicates=10, max_new_tokens=8)
    said = read_outputs(folder / "said" / scores.systems[0].outputs_file)
    by_name = {output.audio_filepath.rsplit("/")[-1]: output.pred_text for output in said.values()}
    return write([by_name[row["audio_filepath"]].strip() + more for row in rows])


def counting(monkeypatch):
    """Counts the windows that systems answer."""
    from shoal.evaluation import decode_systems

    calls, real = [], decode_systems.decode_window
    monkeypatch.setattr(decode_systems, "decode_window", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def layers_of(steps):
    return [step.plan.layers for step in steps]


def test_a_wide_budget_finds_the_shallowest_plan_there_is(model, data, tmp_path, caplog):
    found = search(model, data, max_increase=HUGE, out=tmp_path / "out", **FEW)
    assert [len(step.plan.layers) for step in found.steps] == [1, 2, 3]
    assert all(step.holds for step in found.steps)
    assert [len(each.plan.layers) for each in found.confirmations] == [1, 2, 3]
    assert all(each.p_seen <= 0.05 and each.holds and not each.confirmed for each in found.confirmations)
    assert found.chosen.layers == found.steps[2].plan.layers
    assert found.reason == "No shallower plan could be made."
    assert Search.load(tmp_path / "out" / "search.json") == found
    assert Plan.load(tmp_path / "out" / "plan.json") == found.chosen
    # Four clips confirm nothing, which is said before plans are tried, and wherever the plan goes.
    assert not found.confirmed
    assert [found.validation_drawn.clusters, found.confirmation_drawn.clusters] == [4, 4]
    few = "4 clips of one speaker in the confirmation split are fewer than the 20 that are needed"
    assert f"warning: no plan can be confirmed: {few}" in caplog.text
    assert found.chosen.note == how_sure(found)
    assert found.chosen.note.startswith("not confirmed: it holds on 4 unseen clips of one speaker (p = 0.")
    assert few in found.chosen.note


def test_enough_clips_confirm_a_plan_or_it_is_said_how_many_would(model, data, monkeypatch, caplog):
    """Eight clips stand for many: what is enough is turned down, and what a loop costs up."""
    monkeypatch.setattr("shoal.plan_search.rule.FEW_CLUSTERS", 4)
    monkeypatch.setattr("shoal.plan_search.words.FEW_CLUSTERS", 4)
    found = search(model, data, max_increase=HUGE, **FEW)
    assert found.confirmed
    assert all(test.confirmed for test in found.confirmations)
    assert how_sure(found).startswith("confirmed on 4 unseen clips of one speaker (p = 0.")
    assert "warning" not in caplog.text
    monkeypatch.setattr("shoal.plan_search.trials.longest_answer", lambda *_: 1e5)
    found = search(model, data, max_increase=HUGE, **FEW)
    assert not found.confirmed
    assert len(found.chosen.layers) == 3
    needed = found.steps[2].clips_needed
    assert min(needed, found.least_clips_needed) > 4
    assert f"a loop on another could cost more: about {needed} clips would be needed to confirm it" in how_sure(found)
    assert (
        f"about {found.least_clips_needed} confirmation clips would confirm a plan that changes nothing" in caplog.text
    )


def test_greedy_plans_are_those_of_the_loss(model, data):
    found = search(model, data, max_increase=HUGE, **FEW)
    half = replace(data, rows=[row for row in data.rows if row.speaker == _validated(found, data)])
    measure = LossMeasure(ImportanceRequest(model, half, tasks.get("asr"), "speech"))
    singles = measure([(layer,) for layer in range(3)])
    assert found.steps[0].plan.layers == [int(np.argmin(singles))]
    assert found.steps[0].measure.value == pytest.approx(singles.min(), abs=1e-5)
    assert all(set(a) < set(b) for a, b in pairwise(layers_of(found.steps)))
    assert measure([tuple(found.steps[1].plan.layers)])[0] == pytest.approx(found.steps[1].measure.value, abs=1e-5)


def _validated(found, data):
    """The speaker of the validation split: the unpruned model has the same score there."""
    from shoal.data.splits import split

    return split(data, found.seed).validation.rows[0].speaker


def test_scores_are_those_of_evaluate(model, data):
    found = search(model, data, max_increase=HUGE, **FEW)
    half = replace(data, rows=[row for row in data.rows if row.speaker != _validated(found, data)])
    scores = evaluate(model, half, plans=[each.plan for each in found.confirmations], **FEW)
    assert found.full_confirmation == scores.systems[0].measures["WER"].value
    for each, system in zip(found.confirmations, scores.systems[1:], strict=True):
        assert each.score == system.measures["WER"].value
        assert each.change.value == pytest.approx(system.measures["WER"].delta.relative.value)


def test_no_speaker_and_no_clip_is_in_both_splits(model, data, tmp_path):
    found = search(model, data, max_increase=HUGE, out=tmp_path, **FEW)
    said = [read_outputs(tmp_path / half / "outputs/full.jsonl") for half in ("validation", "confirmation")]
    assert (len(said[0]), len(said[1])) == (found.validation_clips, found.confirmation_clips) == (4, 4)
    assert not said[0].keys() & said[1].keys()
    assert {each.speaker for each in said[0].values()}.isdisjoint({each.speaker for each in said[1].values()})
    assert found.shared_speakers == 0
    assert found.data.clips == 8


def test_a_budget_of_nothing_finds_no_plan_and_leaves_none(model, tmp_path):
    data = answered(model, tmp_path / "clips")
    (tmp_path / "plan.json").write_text("{}")
    found = search(model, data, max_increase=0, out=tmp_path, **FEW)
    assert found.chosen is None
    assert found.confirmations == []
    assert found.reason.startswith(f"No plan holds: removing layer {found.steps[0].plan.layers[0]} alone raises WER")
    assert not (tmp_path / "plan.json").exists()
    assert Search.load(tmp_path / "search.json") == found


def test_it_stops_when_plans_in_a_row_break_the_budget(model, tmp_path):
    data = answered(model, tmp_path / "clips")
    assert len(search(model, data, max_increase=0, patience=1, **FEW).steps) == 1
    assert len(search(model, data, max_increase=0, **FEW).steps) == 2


def test_what_held_where_it_was_chosen_may_fail_on_unseen_clips(model, tmp_path, monkeypatch):
    data = answered(model, tmp_path / "clips")
    monkeypatch.setattr("shoal.plan_search.run.held_on_validation", lambda *_: True)
    calls = counting(monkeypatch)
    found = search(model, data, max_increase=0, patience=9, **FEW)
    assert all(step.holds for step in found.steps)
    assert found.chosen is None
    assert [(len(test.plan.layers), test.holds) for test in found.confirmations] == [(1, False)]
    assert len(calls) == 4 + 2  # what stands behind the first that fails is not decoded
    assert found.reason.startswith(
        "3 plans held on the validation split, but the least pruned of those tested did not on unseen clips: there "
    )


def test_running_again_neither_decodes_nor_measures(model, data, tmp_path, monkeypatch):
    first = search(model, data, max_increase=HUGE, out=tmp_path, **FEW)
    calls = counting(monkeypatch)
    monkeypatch.setattr(LossMeasure, "__init__", lambda *_, **__: pytest.fail("measured again"))
    again = search(model, data, max_increase=HUGE, out=tmp_path, **FEW)
    assert calls == []
    assert layers_of(again.steps) == layers_of(first.steps)
    assert [each.score for each in again.confirmations] == [each.score for each in first.confirmations]
    stored = (tmp_path / "search.json").read_bytes()
    for other, line in (
        ({"confirm_plans": 1}, "a search with confirm_plans 3, not 1; .*--force"),
        ({"strategy": "lowest"}, 'with metric "ablation", not "influence"'),
        ({"data": data.only(data.rows[:6])}, 'a search with clips "'),
        ({"max_layers": 2}, "with budget.max_layers null, not 2"),
    ):
        with pytest.raises(UsageError, match=line):
            search(model, **{"data": data, "max_increase": HUGE, "out": tmp_path, **FEW, **other})
    assert (tmp_path / "search.json").read_bytes() == stored
    stricter = search(model, data, max_increase=HUGE, confirm_plans=1, force=True, out=tmp_path, **FEW)
    assert calls == []
    assert stricter.chosen.layers == first.chosen.layers


def test_every_plan_is_decoded_once_and_so_is_the_unpruned_model(model, data, monkeypatch):
    calls = counting(monkeypatch)
    search(model, data, max_increase=HUGE, batch_size=4, **FEW)
    assert len(calls) == 2 * (1 + 3)


def test_what_was_measured_otherwise_is_measured_anew(model, data, tmp_path):
    search(model, data, max_increase=HUGE, out=tmp_path, **FEW)
    before = json.loads((tmp_path / "path.json").read_text())
    search(model, data, max_increase=HUGE, scope="last", force=True, out=tmp_path, **FEW)
    after = json.loads((tmp_path / "path.json").read_text())
    assert before["key"] != after["key"]
    (tmp_path / "path.json").write_text("[1")
    search(model, data, max_increase=HUGE, force=True, out=tmp_path, **FEW)
    assert json.loads((tmp_path / "path.json").read_text())["key"] == before["key"]


def test_audio_that_turns_out_bad_is_left_out_of_its_split(model, tmp_path):
    data = dataset(tmp_path / "clips", 8)
    data.max_bad = 1
    broken = np.full(4800, np.nan, dtype=np.float32)
    soundfile.write(tmp_path / "clips" / "clip0.wav", broken, 16_000, subtype="FLOAT")
    found = search(model, data, max_increase=HUGE, out=tmp_path / "out", **FEW)
    assert sorted((found.validation_clips, found.confirmation_clips)) == [3, 4]
    assert found.data.clips == 7
    assert len(found.data.skipped) == 1
    # A process that has not met the bad clip asks for the same search.
    anew = read_manifests([str(tmp_path / "clips" / "manifest.jsonl")], max_bad=1)
    again = search(model, anew, max_increase=HUGE, out=tmp_path / "out", **FEW)
    assert again.data == found.data


def test_with_costs_alone_the_fewest_layers_that_keep_to_them_go(model, data):
    found = search(model, data, max_layers=2, **FEW)
    assert [len(step.plan.layers) for step in found.steps] == [2]
    assert found.chosen.layers == found.steps[0].plan.layers
    assert (found.confirmed, found.chosen.note) == (False, "measured on 4 unseen clips of one speaker, not tested")
    assert found.budget.max_increase is None
    assert found.tested_increase == 0.25
    assert found.confirmations[0].p_value is not None
    assert "fewer layers" in found.reason


def test_both_budgets_must_be_kept_to(model, tmp_path):
    data = answered(model, tmp_path / "clips")
    assert search(model, data, max_layers=2, max_increase=0, **FEW).chosen is None
    found = search(model, data, max_layers=2, max_increase=HUGE, **FEW)
    assert [len(step.plan.layers) for step in found.steps] == [2, 3]
    assert len(found.chosen.layers) == 3


def test_megabytes_are_those_of_the_weights(model, data):
    info = model.info()
    layer, full = 4e-6 * info.decoder_layer_parameters[0], 4e-6 * info.total_parameters
    found = search(model, data, max_megabytes=full - 1.5 * layer, **FEW)
    assert len(found.chosen.layers) == 2
    assert found.steps[0].megabytes == pytest.approx(full - 2 * layer)


def test_latency_is_measured_until_it_is_low_enough(model, data, monkeypatch):
    def timed(_, plans):
        milliseconds = 40.0 - 10 * sum(len(plan.layers) for plan in plans)
        return milliseconds, milliseconds + 2

    monkeypatch.setattr(SearchRun, "_milliseconds", timed)
    found = search(model, data, max_milliseconds=25, **FEW)
    assert (len(found.chosen.layers), found.steps[0].milliseconds) == (2, 20.0)
    with pytest.raises(UsageError, match="already"):
        search(model, data, max_milliseconds=45, **FEW)
    by_bound, by_value = (search(model, data, max_milliseconds=21, point=point, **FEW) for point in (False, True))
    assert (len(by_bound.chosen.layers), len(by_value.chosen.layers)) == (3, 2)
    assert by_bound.steps[0].milliseconds_bound == 12.0
    none = search(model, data, max_milliseconds=5, **FEW)
    assert (none.steps, none.reason) == ([], "No plan keeps to the bounds on costs.")


@pytest.mark.slow
def test_latency_is_that_of_bench(model, data):
    found = search(model, data, max_milliseconds=1e6, max_increase=HUGE, confirm_plans=1, **FEW)
    assert all(0 < step.milliseconds <= step.milliseconds_bound < 1e6 for step in found.steps)


@pytest.mark.parametrize(
    ("strategy", "metric", "part"),
    [
        ("beam", None, "layer"),
        ("contiguous", "angular", "layer"),
        ("contiguous", "influence", "layer"),
        ("contiguous", "gradient", "layer"),
        ("contiguous", "ablation", "layer"),
        ("lowest", "influence", "layer"),
        ("lowest", "ablation", "attention"),
        ("lowest", "gradient-signed", "mlp"),
        ("greedy", None, "mlp"),
    ],
)
def test_every_strategy_gives_plans_that_can_be_carried_out(model, data, strategy, metric, part):
    found = search(model, data, max_increase=HUGE, strategy=strategy, metric=metric, part=part, **FEW)
    assert [len(step.plan.layers) for step in found.steps] == [1, 2, 3]
    assert found.chosen.part == part
    assert found.chosen.strategy == strategy
    assert all(3 not in step.plan.layers for step in found.steps)
    if strategy == "contiguous":
        assert all(step.plan.block for step in found.steps)
    assert found.steps[0].measure is not None
    assert found.chosen.source.metric == (metric or "ablation")


def test_the_last_layer_goes_only_if_told(model, data):
    found = search(model, data, max_increase=HUGE, strategy="lowest", allow_last=True, metric="angular", **FEW)
    assert [len(step.plan.layers) for step in found.steps] == [1, 2, 3]
    assert found.chosen.allow_last


@pytest.mark.parametrize(("task", "field", "name"), [("ast", "translation", "BLEU"), ("ser", "emotion", "accuracy")])
def test_other_tasks_are_judged_by_their_own_score(model, tmp_path, task, field, name):
    data = answered(model, tmp_path, task, field, more="")
    found = search(model, data, task, max_increase=2.0, max_layers=2, **FEW)
    assert found.score_name == name
    assert all(step.change.value >= 0 for step in found.steps)
    assert found.chosen is not None
    usual = search(model, data, task, **FEW)
    assert usual.budget.max_increase == 0.1


def test_clips_given_for_the_confirmation_are_used(model, data, tmp_path):
    other = dataset(tmp_path / "other", 6)
    found = search(model, data, confirm_data=other, max_increase=HUGE, **FEW)
    assert (found.validation_clips, found.confirmation_clips, found.shared_speakers) == (8, 6, 2)
    with pytest.raises(UsageError, match="--confirm-data"):
        search(model, data, confirm_data=data, **FEW)


def test_clips_of_one_speaker_are_drawn_one_by_one(model, data):
    outcome = search(model, data, cluster="speaker", max_increase=HUGE, **FEW)
    assert outcome.confirmations[0].p_value == search(model, data, max_increase=HUGE, **FEW).confirmations[0].p_value


def test_an_unpruned_model_that_gets_nothing_right_is_refused(model, tmp_path):
    data = read_manifests([str(write_clips(tmp_path, 4, emotion="happy"))])
    with pytest.raises(ManifestError, match="accuracy on the validation split is 0"):
        search(model, data, "ser", **FEW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "magic"}, "use greedy, beam, contiguous or lowest"),
        ({"metric": "angular"}, "cannot rank by 'angular'; use ablation"),
        ({"strategy": "contiguous", "part": "mlp"}, "whole layers"),
        ({"strategy": "lowest", "metric": "influence", "part": "mlp"}, "use ablation, gradient"),
        ({"scope": "left"}, "--scope"),
        ({"input": "smell"}, "--input"),
        ({"part": "norm"}, "--part"),
        ({"width": 0}, "--width"),
        ({"confirm_plans": 0}, "--confirm-plans"),
        ({"max_increase": -1}, "--max-increase"),
        ({"max_layers": 4}, "already"),
        ({"max_layers": 2, "part": "mlp"}, "whole layers"),
        ({"replicates": 10}, "--replicates"),
        ({"task": "lm"}, "the task lm cannot take the input 'speech'; use text"),
        ({"task": "ser", "input": "text"}, "the task ser cannot take the input 'text'"),
    ],
)
def test_what_cannot_be_searched_is_one_line(model, data, wrong, said):
    with pytest.raises(UsageError, match=said) as caught:
        search(model, data, **{**FEW, **wrong})
    assert "\n" not in str(caught.value)


def test_a_text_llm_is_refused(model, data):
    with pytest.raises(UsageError, match="cannot hear"):
        search(replace(model, kind="causal_lm"), data, **FEW)
