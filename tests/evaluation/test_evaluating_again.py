"""An evaluation's folder keeps what was scored, takes more, and refuses what would lose something."""

from __future__ import annotations

import pytest

import shoal
from shoal.errors import UsageError
from shoal.evaluation import evaluate, rescore
from shoal.schema import Scores
from shoal.score_tables import system_name
from tiny_speech import loaded, plan, write_clips

FEW = {"replicates": 50, "batch_size": 4, "max_new_tokens": 12}


def test_fewer_clips_and_systems_keep_what_is_there(model, data, tmp_path):
    out = tmp_path / "out"
    first = evaluate(model, data, plans=[plan(1), plan(0, 2)], out=out, **FEW)
    few = shoal.read_manifests([str(tmp_path / "clips" / "manifest.jsonl")], limit=2)
    again = evaluate(model, few, plans=[plan(0, 2)], out=out, **FEW)
    assert again.data == first.data
    # The plans given now stand first.
    assert [system.removed for system in again.systems] == [[], [0, 2], [1]]
    by_layers = [{tuple(system.removed): system.measures for system in scores.systems} for scores in (first, again)]
    assert by_layers[0] == by_layers[1]
    assert Scores.load(out / "scores.json").data.clips == 6


def test_more_clips_extend_every_system(model, data, tmp_path):
    out = tmp_path / "out"
    few = shoal.read_manifests([str(tmp_path / "clips" / "manifest.jsonl")], limit=2)
    evaluate(model, few, plans=[plan(1)], out=out, **FEW)
    grown, whole = evaluate(model, data, out=out, **FEW), evaluate(model, data, plans=[plan(1)], **FEW)
    assert grown.data.clips == 6
    assert [system.measures for system in grown.systems] == [system.measures for system in whole.systems]


def test_other_clips_are_refused_unless_forced(model, tmp_path):
    out, folder = tmp_path / "out", tmp_path / "clips"
    manifest = str(write_clips(folder))
    evaluate(model, shoal.read_manifests([manifest], where=("room=a",)), out=out, **FEW)
    before = (out / "scores.json").read_bytes()
    other = shoal.read_manifests([manifest], where=("room=b",))
    with pytest.raises(UsageError) as error:
        evaluate(model, other, out=out, **FEW)
    assert "scores of 3 clips that are not among these 3" in str(error.value)
    assert "--force" in str(error.value)
    assert (out / "scores.json").read_bytes() == before
    assert evaluate(model, other, out=out, force=True, **FEW).data.clips == 3


def test_another_checkpoint_stays_the_baseline(model, data, tmp_path):
    out, peer = tmp_path / "out", loaded(seed=1)
    first = evaluate(model, data, against=peer, out=out, **FEW)
    again = evaluate(model, data, out=out, **FEW)
    assert [system.model_ref for system in again.systems] == [system.model_ref for system in first.systems]
    assert [system.measures for system in again.systems] == [system.measures for system in first.systems]
    write_clips(tmp_path / "clips", 7)
    more = shoal.read_manifests([str(tmp_path / "clips" / "manifest.jsonl")])
    with pytest.raises(UsageError, match="scores of tiny-1, but on other clips"):
        evaluate(model, more, out=out, **FEW)


def test_groups_and_intervals_stay_until_others_are_asked_for(model, data, tmp_path):
    out = tmp_path / "out"
    first = evaluate(model, data, plans=[plan(1)], out=out, group_by=["room"], out_of_domain=["clips"], seed=3, **FEW)
    assert "room" in first.systems[0].groups
    for again in (rescore(out), evaluate(model, data, out=out, batch_size=4, max_new_tokens=12)):
        assert again.systems == first.systems
        assert (again.seed, again.replicates, again.out_of_domain) == (3, 50, first.out_of_domain)
    other = rescore(out, group_by=["speaker"], level=0.9)
    assert list(other.systems[0].groups) == ["speaker", "domain"]
    assert (other.level, other.replicates) == (0.9, 50)


def test_checkpoints_beside_are_scored_as_themselves(model, data, tmp_path):
    """As when each is evaluated alone; again nothing changes, whether they are named or not."""
    other = saved_other(tmp_path / "made" / "other")
    out = tmp_path / "out"
    scores = evaluate(model, data, plans=[plan(1)], beside=[other], out=out, **FEW)
    alone = evaluate(other, data, **FEW).systems[0]
    assert [system.name for system in scores.systems] == ["full", "manual-1", "other"]
    beside = scores.systems[2]
    assert beside.measures["WER"].value == alone.measures["WER"].value
    assert (beside.model_ref, beside.fingerprint) == (other.ref, other.info().fingerprint)
    assert system_name(beside) == "other"
    for again in (evaluate(model, data, beside=[other], out=out, **FEW), evaluate(model, data, out=out, **FEW)):
        assert {system.name: system.measures for system in again.systems} == {
            system.name: system.measures for system in scores.systems
        }


def saved_other(folder):
    """Another tiny checkpoint, in a folder."""
    other = loaded(seed=1)
    other.ref = str(folder)
    return other
