"""An audit with gradients and ablation: what is measured, kept, reused and refused."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from shoal import tasks
from shoal.data import read_manifests
from shoal.errors import UsageError
from shoal.measurement.ablation import LossMeasure, ablate
from shoal.measurement.audit import audit
from shoal.measurement.blocks import block_candidates
from shoal.measurement.metric_types import ImportanceOptions, ImportanceRequest
from shoal.measurement.sums import load_sums, save_sums
from shoal.plan_search.run import search
from shoal.schema import Audit
from tiny_speech import dataset, loaded, write_clips


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"))


def request(model, data, kind="speech", **options):
    return ImportanceRequest(model, data, tasks.get("asr"), kind, ImportanceOptions(**options))


GRADIENTS = tuple(f"gradient {quantity}" for quantity in ("clip-absolute", "squared", "absolute", "signed"))


def everything(model, data, out=None, **more):
    options = {
        "metrics": ["gradient", "ablation"],
        "block_sizes": None,
        "parts": ["layer", "attention", "mlp"],
    }
    return audit(model, data, "asr", out=out, replicates=50, **{**options, **more})


def test_an_audit_holds_gradients_ablation_and_which_to_trust(tmp_path, data):
    document = everything(loaded(), data, tmp_path)
    for kind in ("speech", "text"):
        found = {item.name: item for item in document.inputs[kind].importance}
        assert set(found) == {
            f"{part}{metric}"
            for part in ("", "attention ", "mlp ")
            for metric in (*GRADIENTS, "ablation loss", "ablation kl")
        }
        loss = found["ablation loss"]
        assert [tuple(layers) for layers in loss.candidates] == block_candidates(4)
        assert loss.utterances == 6
        assert loss.full is not None
        assert loss.method == "replay"
        assert all(low <= value <= high for low, value, high in zip(loss.low, loss.values, loss.high, strict=True))
        assert [trust.truth for trust in document.inputs[kind].trust] == ["ablation loss", "ablation kl"]
        assert {each.metric for each in document.inputs[kind].trust[0].metrics} >= {
            "angular",
            "influence",
            *GRADIENTS,
            "ablation kl",
        }
    assert Audit.load(tmp_path / "audit.json").model_dump(exclude={"provenance"}) == document.model_dump(
        exclude={"provenance"}
    )


def test_what_was_measured_is_not_measured_again(tmp_path, data, monkeypatch):
    model = loaded()
    first = everything(model, data, tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("shoal.measurement.ablation.ablate", never)
    monkeypatch.setattr("shoal.measurement.gate_gradients.gate_gradients", never)
    again = everything(model, data, tmp_path)
    assert [item.values for item in again.inputs["speech"].importance] == [
        item.values for item in first.inputs["speech"].importance
    ]
    # Asked for less, it keeps what is there, in the document too.
    less = audit(model, data, "asr", out=tmp_path, inputs=["speech"], replicates=50)
    assert less.model_dump(include={"inputs"}) == again.model_dump(include={"inputs"})
    assert Audit.load(tmp_path / "audit.json").inputs["text"].importance


def test_a_quantity_that_an_older_version_did_not_measure_is_measured_with_its_metric(tmp_path, data):
    model, options = loaded(), {"inputs": ["text"], "metrics": ["gradient"], "replicates": 20}
    first = audit(model, data, "asr", out=tmp_path, **options)
    stored = load_sums(tmp_path / "audit.npz")
    stored.importance["text"] = [item for item in stored.importance["text"] if item.quantity in ("absolute", "signed")]
    save_sums(tmp_path / "audit.npz", stored)
    again = audit(model, data, "asr", out=tmp_path, **options)
    assert again.inputs["text"].importance == first.inputs["text"].importance


def test_fewer_blocks_and_parts_keep_what_is_there(tmp_path, data, monkeypatch):
    model = loaded()
    first = everything(model, data, tmp_path)
    monkeypatch.setattr("shoal.measurement.gate_gradients.gate_gradients", None)
    monkeypatch.setattr("shoal.measurement.ablation.ablate", None)
    document = everything(model, data, tmp_path, block_sizes=[1], parts=["layer"])
    assert document.inputs == first.inputs


def test_more_blocks_and_parts_are_added_and_only_they_are_measured(tmp_path, data, monkeypatch):
    from shoal.measurement import ablation

    model, measured, real = loaded(), [], ablation.ablate

    def spied(request, candidates, part="layer", **options):
        measured.extend((part, layers) for layers in candidates)
        return real(request, candidates, part, **options)

    monkeypatch.setattr(ablation, "ablate", spied)
    options = {"inputs": ["text"], "metrics": ["ablation"], "replicates": 50}
    for number, more in enumerate(
        ({}, {"block_sizes": [2]}, {"block_sizes": [1, 3], "parts": ["mlp"]}, {"decode": False})
    ):
        document = audit(model, data, "asr", out=tmp_path / "grown", **options, **more)
        assert (number, len(measured)) == (number, [4, 4 + 3, 4 + 3 + 4, 4 + 3 + 4][number])
    at_once = audit(model, data, "asr", out=tmp_path / "at once", **options, block_sizes=[1, 2], parts=["layer", "mlp"])
    grown, whole = ({item.name: item for item in each.inputs["text"].importance} for each in (document, at_once))
    assert grown == whole


def test_what_contradicts_is_refused_before_anything_is_measured(tmp_path, data, monkeypatch):
    model = loaded()
    options = {"inputs": ["text"], "metrics": ["ablation"], "replicates": 20, "out": tmp_path}
    audit(model, data, "asr", **options)
    before = (tmp_path / "audit.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("shoal.measurement.audit.collect", None)
        for other, line in (
            ({"loss_scope": "all"}, 'ablation with scope "response", not "all"'),
            ({"race": True}, "ablation with race false, not true"),
        ):
            with pytest.raises(UsageError) as error:
                audit(model, data, "asr", **options, **other)
            assert line in str(error.value)
            assert "--force" in str(error.value)
    assert (tmp_path / "audit.npz").read_bytes() == before
    forced = audit(model, data, "asr", **options, loss_scope="all", force=True)
    assert {item.scope for item in forced.inputs["text"].importance} == {"all"}


def test_more_clips_are_measured_for_all_that_is_there_and_only_they(tmp_path, data, monkeypatch):
    """The same numbers as from one audit of all clips, also of what is not asked for again."""
    from shoal.decoder import batches

    model, measured, real = loaded(), [], batches.prepare
    options = {"metrics": ["gradient", "ablation"], "block_sizes": [1, 2], "replicates": 20}
    audit(model, data.only(data.rows[:4]), "asr", out=tmp_path, **options)

    def spied(loaded, clips, *arguments, **more):
        measured.extend(clip.row.id for clip in clips)
        return real(loaded, clips, *arguments, **more)

    monkeypatch.setattr(batches, "prepare", spied)
    grown = audit(model, data, "asr", out=tmp_path, inputs=["speech"], metrics=["gradient"], replicates=20)
    assert set(measured) == {row.id for row in data.rows[4:]}
    assert grown.data.clips == 6
    whole = audit(model, data, "asr", **options)
    for kind in ("speech", "text"):
        now, at_once = grown.inputs[kind], whole.inputs[kind]
        for name, metric in at_once.scopes["all"].metrics.items():
            assert now.scopes["all"].metrics[name].values == [pytest.approx(row) for row in metric.values]
        assert [item.name for item in now.importance] == [item.name for item in at_once.importance]
        for item, other in zip(now.importance, at_once.importance, strict=True):
            assert (item.utterances, item.clips) == (6, other.clips)
            assert item.values == pytest.approx(other.values, rel=3e-6, abs=1e-6)
    again = audit(model, data, "asr", out=tmp_path, **options)
    assert again.inputs == grown.inputs


@pytest.mark.parametrize("process", ["same", "another"])
def test_clips_with_bad_audio_are_no_other_clips(tmp_path, process):
    """They are tried again and counted as they were, in a process that has met them before and in one that has not."""
    model, manifest = loaded(), write_clips(tmp_path / "clips")
    soundfile.write(tmp_path / "clips" / "clip0.wav", np.full(4800, np.nan, np.float32), 16_000, subtype="FLOAT")

    def read():
        return read_manifests([str(manifest)], max_bad=1)

    clips = read()
    first = audit(model, clips, "asr", out=tmp_path / "out", metrics=["gradient"], replicates=20)
    again = audit(model, clips if process == "same" else read(), "asr", out=tmp_path / "out", replicates=20)
    assert first.data.clips == 5
    assert again.data == first.data
    assert again.inputs == first.inputs
    assert len(again.data.skipped) == 1


def test_the_file_gives_back_what_was_written(tmp_path, data):
    document = everything(loaded(), data, tmp_path)
    kept = load_sums(tmp_path / "audit.npz").importance["speech"]
    for item, shown in zip(kept, document.inputs["speech"].importance, strict=True):
        assert item.means().tolist() == pytest.approx(shown.values)
        assert item.refused == shown.refused


def test_the_mean_loss_does_not_depend_on_batches(data):
    model = loaded()
    candidates = block_candidates(4, [1, 2])
    small, large = (ablate(request(model, data, batch_size=size), candidates)[0] for size in (1, 16))
    np.testing.assert_allclose(small.means(), large.means(), rtol=1e-4)
    measure = LossMeasure(request(model, data))
    np.testing.assert_allclose(measure(candidates), large.means(), rtol=1e-4)
    assert not measure.refused


def test_a_race_measures_fewer_clips_of_the_worse_and_all_of_the_winner(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("shoal.measurement.racing.FIRST_ROUND", 4)
    many = dataset(tmp_path_factory.mktemp("many"), 36)
    model = loaded()
    plain = ablate(request(model, many, "text"), block_candidates(4, [1]))[0]
    raced = ablate(request(model, many, "text", race=True), block_candidates(4, [1]), risk=0.5)[0]
    seen = (~np.isnan(raced.values)).sum(0)
    winner = plain.means().argmin()
    assert seen[winner] == seen.max() == len(raced.utterances)
    assert seen.sum() < 4 * 36
    assert raced.utterances != plain.utterances[: len(raced.utterances)]
    assert set(raced.utterances) <= set(plain.utterances)
    values = dict(zip(plain.utterances, plain.values, strict=True))
    for name, row in zip(raced.utterances, raced.values, strict=True):
        known = ~np.isnan(row)
        np.testing.assert_allclose(row[known], values[name][known], rtol=1e-4, atol=1e-5)


def test_a_layer_that_cannot_be_removed_has_a_reason_and_no_value(data, monkeypatch):
    from shoal.errors import ModelError
    from shoal.pruning import in_memory

    real = in_memory.pruned

    def picky(model, layers, **options):
        if 2 in layers:
            raise ModelError("layer 2 holds everybody's keys", where="Tiny")
        return real(model, layers, **options)

    monkeypatch.setattr(in_memory, "pruned", picky)
    document = audit(loaded(), data, "asr", inputs=["speech"], metrics=["ablation"], replicates=20)
    loss = document.inputs["speech"].importance[0]
    assert loss.values[2] is None
    assert loss.refused == {2: "layer 2 holds everybody's keys"}
    assert all(value is not None for place, value in enumerate(loss.values) if place != 2)


def test_decoding_counts_the_errors_that_evaluate_counts(tmp_path, data):
    from shoal.evaluation import evaluate
    from shoal.selection import manual

    model = loaded()
    document = audit(
        model, data, "asr", inputs=["speech"], metrics=["ablation"], decode=True, replicates=20, out=tmp_path
    )
    score = next(item for item in document.inputs["speech"].importance if item.quantity == "score")
    plans = [manual("tiny", 4, [layer], allow_last=True) for layer in range(4)]
    scores = evaluate(model, data, "asr", plans=plans, replicates=20)
    expected = [system.measures["WER"].delta.absolute.value for system in scores.systems[1:]]
    assert score.values == pytest.approx(expected)
    assert score.full.value == pytest.approx(scores.systems[0].measures["WER"].value.value)
    assert score.unit == "WER"
    assert (tmp_path / "ablation" / "outputs" / "without-2.jsonl").is_file()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"metrics": ["perplexity"]}, "--metric: unknown metric 'perplexity'; use angular, influence"),
        ({"metrics": ["ablation"], "parts": ["head"]}, "--part: unknown part 'head'; use layer"),
        ({"metrics": ["ablation"], "block_sizes": [4]}, "--block-sizes: a block of 4 layers of 4"),
        ({"metrics": ["gradient"], "race": True}, "--race: only ablation does that; add --metric ablation"),
        ({"metrics": ["ablation"], "loss_scope": "audio"}, "--loss-scope: audio has no tokens to predict"),
        ({"metrics": ["ablation"], "decode": True, "inputs": ["text"]}, "--decode: there is no speech"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(data, options, line):
    with pytest.raises(UsageError) as error:
        audit(loaded(), data, "asr", **options)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_scopes_of_a_text_that_stands_alone(data):
    model = loaded()
    measured = audit(model, data, "lm", replicates=20).inputs["text"]
    assert set(measured.scopes) == {"all", "response", "last"}
    assert measured.empty_scopes["prompt"] == "a text that stands alone has no prompt"
    for scope in ("prompt", "audio"):
        with pytest.raises(UsageError, match=f"^--loss-scope: in the task lm a text stands alone, without {scope}"):
            audit(model, data, "lm", metrics=["gradient"], loss_scope=scope)
        with pytest.raises(UsageError, match=f"^--scope: in the task lm a text stands alone, without {scope}"):
            search(model, data, "lm", input="text", scope=scope, max_layers=1)


def test_another_translation_is_measured_anew_where_it_may(tmp_path):
    """The data set's fingerprint is over what is heard; what is to be answered counts too."""
    from shoal.data import read_manifests
    from tiny_speech import write_clips

    model, clips = loaded(), tmp_path / "clips"
    losses = []
    for answer in ("eins zwei", "something else"):
        manifest = write_clips(clips, 3, translation=answer)
        document = audit(
            model,
            read_manifests([str(manifest)]),
            "ast",
            inputs=["text"],
            metrics=["ablation"],
            replicates=20,
            out=tmp_path / "audit",
            force=bool(losses),
        )
        losses.append(document.inputs["text"].importance[0].full.value)
    assert losses[0] != losses[1]


def test_a_row_without_an_answer_is_refused_by_its_place(tmp_path):
    from shoal.errors import ManifestError

    with pytest.raises(ManifestError, match=r"manifest\.jsonl:1: no translation"):
        audit(loaded(), dataset(tmp_path, 2), "ast")
