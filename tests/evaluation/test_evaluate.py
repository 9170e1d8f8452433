"""Evaluation from clips to scores, on a tiny random SpeechLLM."""

from __future__ import annotations

import json

import jiwer
import pytest
import torch

from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.errors import FileFormatError, PlanError, UsageError
from shoal.evaluation import evaluate, rescore, window
from shoal.evaluation.system_outputs import read_outputs
from shoal.pruning.in_memory import pruned
from shoal.schema import Scores
from tiny_speech import dataset, loaded, plan

FEW = {"replicates": 50, "batch_size": 4, "max_new_tokens": 12}


def counting(monkeypatch):
    """Counts the clips that are encoded."""
    seen = []
    real = window.prepare

    def counted(model, clips, *args, **kwargs):
        seen.extend(clip.id for clip in clips)
        return real(model, clips, *args, **kwargs)

    monkeypatch.setattr(window, "prepare", counted)
    return seen


def said_alone(model, clip, limit=12):
    """One clip through transformers' own `generate`."""
    batch = prepare(model, [clip], tasks.get("asr"))
    out = model.lm.generate(
        inputs_embeds=batch.embeds,
        attention_mask=batch.attention_mask,
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=list(model.eos_ids),
        pad_token_id=0,
    )
    return model.tokenizer.decode(out[0], skip_special_tokens=True)


def test_every_system_says_what_generate_says(model, data, tmp_path):
    scores = evaluate(model, data, plans=[plan(1), plan(0, 2)], out=tmp_path / "out", **FEW)
    assert [system.name for system in scores.systems] == ["full", "manual-1", "manual-2"]
    for system in scores.systems:
        stored = read_outputs(tmp_path / "out" / system.outputs_file)
        with pruned(model.model, system.removed):
            expected = {clip.id: said_alone(model, clip) for clip in data.clips()}
        assert {clip: output.pred_text for clip, output in stored.items()} == expected
    assert len(model.layers) == 4


def test_scores_are_jiwers_on_normalised_text(model, data, tmp_path):
    scores = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    normalise = tasks.get("asr").normaliser("en")
    for system in scores.systems:
        stored = read_outputs(tmp_path / system.outputs_file).values()
        references = [normalise(output.text) for output in stored]
        hypotheses = [normalise(output.pred_text) for output in stored]
        assert system.measures["WER"].value.value == pytest.approx(jiwer.wer(references, hypotheses))
        assert system.measures["CER"].value.value == pytest.approx(jiwer.cer(references, hypotheses))
        assert system.generated_tokens == sum(output.tokens for output in stored)
        assert min(system.encode_seconds, system.prefill_seconds, system.decode_seconds) > 0
    full, cut = scores.systems
    assert full.measures["WER"].delta is None
    assert cut.measures["WER"].delta.absolute.value == pytest.approx(
        cut.measures["WER"].value.value - full.measures["WER"].value.value
    )
    assert scores.normaliser == normalise.label
    assert scores.scorer.startswith("jiwer ")
    assert Scores.load(tmp_path / "scores.json") == scores


def test_batch_size_changes_nothing_that_is_said(model, data):
    alone, together = (evaluate(model, data, plans=[plan(2)], replicates=10, batch_size=size) for size in (1, 6))
    assert alone.examples == together.examples
    assert [system.measures["WER"].value for system in alone.systems] == [
        system.measures["WER"].value for system in together.systems
    ]


def test_the_encoder_runs_once_for_all_systems(model, data, monkeypatch):
    seen = counting(monkeypatch)
    evaluate(model, data, plans=[plan(0), plan(1), plan(2)], **FEW)
    assert sorted(seen) == sorted(row.id for row in data.rows)


def test_rerun_decodes_nothing_and_gives_the_same(model, data, tmp_path, monkeypatch):
    first = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    seen = counting(monkeypatch)
    again = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    assert seen == []
    assert again.systems == first.systems


def test_a_new_plan_decodes_only_itself(model, data, tmp_path):
    evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    before = (tmp_path / "outputs" / "full.jsonl").read_bytes()
    scores = evaluate(model, data, plans=[plan(1), plan(2)], out=tmp_path, **FEW)
    assert [system.removed for system in scores.systems] == [[], [1], [2]]
    assert (tmp_path / "outputs" / "full.jsonl").read_bytes() == before


def test_more_clips_extend_the_outputs(model, tmp_path, monkeypatch):
    evaluate(model, dataset(tmp_path / "clips", 3), out=tmp_path, **FEW)
    seen = counting(monkeypatch)
    scores = evaluate(model, dataset(tmp_path / "clips", 6), out=tmp_path, **FEW)
    assert len(seen) == 3
    assert scores.data.clips == 6


def test_an_interrupted_run_goes_on_where_it_stopped(model, data, tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    def stop(what, done, total):
        if done >= 8:
            raise StopError

    with pytest.raises(StopError):
        evaluate(model, data, plans=[plan(1)], out=tmp_path, progress=stop, **FEW)
    assert not (tmp_path / "scores.json").exists()
    seen = counting(monkeypatch)
    scores = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    assert len(seen) == 2
    assert scores == evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW).model_copy(
        update={"provenance": scores.provenance}
    )


def test_outputs_of_other_settings_are_not_mixed_in(model, data, tmp_path):
    evaluate(model, data, out=tmp_path, **FEW)
    with pytest.raises(FileFormatError, match=r"decoding\.max_new_tokens 12, not 13.*--out"):
        evaluate(model, data, out=tmp_path, **{**FEW, "max_new_tokens": 13})
    with pytest.raises(FileFormatError, match=r"model\.fingerprint"):
        evaluate(loaded(seed=1), data, out=tmp_path, **FEW)


def test_a_corrected_transcript_is_used(model, data, tmp_path):
    evaluate(model, data, out=tmp_path, **FEW)
    manifest = tmp_path / "clips" / "manifest.jsonl"
    corrected = manifest.read_text().replace("she ran", "she ran away twice")
    words = sum(len(row.text.split()) for row in dataset(tmp_path / "clips").rows) + 2
    manifest.write_text(corrected)
    from shoal.data import read_manifests

    scores = evaluate(model, read_manifests([str(manifest)]), out=tmp_path, **FEW)
    counts = scores.systems[0].measures["WER"].edits
    assert counts.hits + counts.substitutions + counts.deletions == words


def test_plans_with_the_same_layers_share_their_outputs(model, data, tmp_path):
    same = [plan(1, strategy="contiguous"), plan(1, strategy="random"), plan(1, strategy="random"), plan()]
    scores = evaluate(model, data, plans=same, out=tmp_path, **FEW)
    assert [system.name for system in scores.systems] == ["full", "contiguous-1", "random-1"]
    assert scores.systems[1].outputs_file == scores.systems[2].outputs_file
    assert scores.systems[1].measures == scores.systems[2].measures


def test_plans_of_one_name_are_told_apart(model, data):
    scores = evaluate(model, data, plans=[plan(1), plan(2)], **FEW)
    assert [system.name for system in scores.systems] == ["full", "manual-1", "manual-1#2"]


def test_another_checkpoint_as_the_baseline(model, data, tmp_path):
    other = loaded(seed=1)
    scores = evaluate(model, data, against=other, plans=[plan(1)], out=tmp_path, **FEW)
    assert [system.name for system in scores.systems] == ["baseline", "full", "manual-1"]
    assert scores.systems[0].model_ref == "tiny-1"
    alone = evaluate(other, data, **FEW)
    assert scores.systems[0].measures["WER"].value.value == alone.systems[0].measures["WER"].value.value
    assert scores.systems[1].measures["WER"].delta is not None
    with pytest.raises(UsageError, match="same weights"):
        evaluate(model, data, against=loaded(), **FEW)


def test_groups_by_speaker_and_any_field(model, data):
    scores = evaluate(model, data, plans=[plan(1)], group_by=["speaker", "room"], **FEW)
    for system in scores.systems:
        assert {name: group.clips for name, group in system.groups["speaker"].items()} == {"s0": 3, "s1": 3}
        assert set(system.groups["room"]) == {"a", "b"}
    assert scores.systems[1].groups["room"]["a"].measures["WER"].delta is not None
    with pytest.raises(UsageError, match=r"'accent'.*fields are"):
        evaluate(model, data, group_by=["accent"], **FEW)


def test_speaker_groups_come_by_themselves(model, data):
    assert list(evaluate(model, data, **FEW).systems[0].groups) == ["speaker"]


def test_rescoring_repeats_the_numbers_without_a_model(model, data, tmp_path):
    scores = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    again = rescore(tmp_path, replicates=50)
    assert again.systems == scores.systems
    assert again.data == scores.data
    by_room = rescore(tmp_path, replicates=50, group_by=["room"])
    assert list(by_room.systems[0].groups) == ["room"]
    assert Scores.load(tmp_path / "scores.json") == by_room


def test_rescoring_without_outputs_says_so(model, data, tmp_path):
    evaluate(model, data, out=tmp_path, **FEW)
    (tmp_path / "outputs" / "full.jsonl").unlink()
    with pytest.raises(FileFormatError, match="not there"):
        rescore(tmp_path)


def test_a_plan_for_another_depth_is_refused(model, data):
    with pytest.raises(PlanError, match="5 layers but the model has 4"):
        evaluate(model, data, plans=[plan(1, depth=5)], **FEW)


def test_a_text_llm_is_refused(model, data):
    from dataclasses import replace

    text_only = replace(model, kind="causal_lm")
    with pytest.raises(UsageError, match="cannot hear"):
        evaluate(text_only, data, **FEW)


def test_bad_limits_are_refused(model, data):
    with pytest.raises(UsageError, match="max-new-tokens"):
        evaluate(model, data, max_new_tokens=0)


def test_the_automatic_limit_follows_the_clip(model, data, tmp_path):
    scores = evaluate(model, data, out=tmp_path, replicates=10)
    for output in read_outputs(tmp_path / "outputs" / "full.jsonl").values():
        assert output.tokens <= 16 + 20 * output.duration + 1
    assert "a second" in scores.decoding["max_new_tokens"]


def test_audio_that_turns_out_bad_is_left_out(model, tmp_path):
    import soundfile

    data = dataset(tmp_path / "clips")
    data.max_bad = 1
    broken = torch.full((4800,), float("nan")).numpy()
    soundfile.write(tmp_path / "clips" / "clip0.wav", broken, 16_000, subtype="FLOAT")
    scores = evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    assert scores.data.clips == 5
    assert len(scores.data.skipped) == 1


def test_outputs_are_nemo_rows(model, data, tmp_path):
    evaluate(model, data, out=tmp_path, **FEW)
    row = json.loads((tmp_path / "outputs" / "full.jsonl").read_text().splitlines()[0])
    assert {"audio_filepath", "duration", "text", "pred_text", "room", "shoal"} <= set(row)
