"""Controls: the wrong audio and silence, as rows, as stored outputs and as scores, and what is said of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

import shoal
from shoal import tasks
from shoal.cli import main
from shoal.cli.evaluation_tables import summary
from shoal.control_tables import control_sentence, control_sentences, listens
from shoal.data import load_audio
from shoal.errors import ManifestError, UsageError
from shoal.evaluation import decode_window, evaluate, evaluate_shard, rescore
from shoal.evaluation.controls import control_clips, derangement
from shoal.evaluation.score_systems import SystemIdentity, score_systems
from shoal.evaluation.settings import ScoringSettings
from shoal.evaluation.system_outputs import read_outputs
from shoal.models.loading import load_model
from shoal.report import render
from shoal.schema import Scores
from stored_outputs import by_id, output
from tiny_audio import qwen2_audio, voxtral, whisper
from tiny_speech import dataset, loaded, plan, write_clips

FEW = {"replicates": 50, "batch_size": 4, "max_new_tokens": 12}
WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"]


@pytest.mark.parametrize("seed", range(30))
def test_every_clip_gets_the_audio_of_another_text(seed: int) -> None:
    draw = random.Random(seed)
    clips = draw.randint(2, 90)
    texts = [draw.randint(0, draw.choice([3, 100])) for _ in range(clips)]
    kinds, seconds = [draw.choice("ab") for _ in range(clips)], [draw.random() for _ in range(clips)]
    if 2 * max(Counter(texts).values()) > clips:
        with pytest.raises(ManifestError, match="more than half of the clips have the same reference"):
            derangement(kinds, seconds, texts)
        return
    partners = derangement(kinds, seconds, texts).tolist()
    assert sorted(partners) == list(range(clips))
    assert all(texts[clip] != texts[partner] for clip, partner in enumerate(partners))
    assert partners == derangement(kinds, seconds, texts).tolist()


def test_partners_are_alike_in_length_and_of_one_kind() -> None:
    seconds = np.random.default_rng(0).permutation(64) / 10
    kinds = ["a" if second < 3.2 else "b" for second in seconds]
    partners = derangement(kinds, seconds.tolist(), list(range(64)))
    assert np.abs(seconds[partners] - seconds).max() < 0.8
    assert [kinds[partner] for partner in partners] == kinds


def test_only_the_audio_of_a_row_is_another(data) -> None:
    samples = {row.id: load_audio(row).samples for row in data.rows}
    shuffled, silent = control_clips(data, tasks.get("asr"))
    assert [control.data.ids() for control in (shuffled, silent)] == [data.ids()] * 2
    for row, heard, still in zip(data.rows, shuffled.data.clips(), silent.data.clips(), strict=True):
        assert (heard.row.id, heard.row.text, heard.row.speaker) == (row.id, row.text, row.speaker)
        assert np.array_equal(heard.samples, samples[heard.row.fields["audio_of"]])
        assert heard.row.fields["audio_of"] != row.id
        assert len(still.samples) == len(samples[row.id])
        assert not still.samples.any()


def test_controls_leave_the_ordinary_scores_alone(model, data, tmp_path) -> None:
    plain = evaluate(model, data, plans=[plan(1)], **FEW)
    scores = evaluate(model, data, plans=[plan(1)], controls=True, out=tmp_path, **FEW)
    assert [system.measures for system in scores.systems] == [system.measures for system in plain.systems]
    assert scores.examples == plain.examples
    assert [list(system.controls) for system in scores.systems] == [["shuffled", "silent"]] * 2
    assert not plain.controlled
    for system in scores.systems:
        for name, control in system.controls.items():
            stored = read_outputs(tmp_path / control.outputs_file)
            assert control.outputs_file.endswith(f".{name}.jsonl")
            assert control.clips == len(stored) == 6
    assert Scores.load(tmp_path / "scores.json") == scores


def test_what_is_heard_is_what_is_said(model, data, tmp_path) -> None:
    """A model that writes what it hears writes to a clip what it writes to the one whose audio it gets."""
    evaluate(model, data, controls=True, out=tmp_path, **FEW)
    own, heard = (read_outputs(tmp_path / "outputs" / f"full{name}.jsonl") for name in ("", ".shuffled"))
    for answer in heard.values():
        assert answer.pred_text == own[answer.fields["audio_of"]].pred_text
        assert answer.text == own[answer.id].text


def test_controls_are_resumed_kept_and_scored_again(model, data, tmp_path, monkeypatch) -> None:
    first = evaluate(model, data, plans=[plan(1)], controls=True, out=tmp_path, **FEW)
    monkeypatch.setattr(decode_window, "decode_window", None)
    again = evaluate(model, data, plans=[plan(1)], controls=True, out=tmp_path, **FEW)
    unasked = evaluate(model, data, out=tmp_path, **FEW)
    assert again.systems == first.systems == unasked.systems == rescore(tmp_path).systems
    assert not evaluate(model, data, controls=False, out=tmp_path, **FEW).controlled


def test_more_clips_and_plans_extend_the_controls(model, tmp_path) -> None:
    evaluate(model, dataset(tmp_path / "clips", 4), controls=True, out=tmp_path, **FEW)
    grown = evaluate(model, dataset(tmp_path / "clips", 6), plans=[plan(2)], out=tmp_path, **FEW)
    whole = evaluate(model, dataset(tmp_path / "clips", 6), plans=[plan(2)], controls=True, **FEW)
    for one, other in zip(grown.systems, whole.systems, strict=True):
        assert [control.measures for control in one.controls.values()] == [
            control.measures for control in other.controls.values()
        ]


def test_shards_decode_controls_too(model, data, tmp_path, monkeypatch) -> None:
    how = {"plans": [plan(1)], "controls": True, "out": tmp_path, "batch_size": 4, "max_new_tokens": 12}
    done = [evaluate_shard(model, data, shard=(number, 2), **how) for number in (2, 1)]
    assert [shard.decoded for shard in done] == [3 * 2 * 3] * 2
    monkeypatch.setattr(decode_window, "decode_window", None)
    sharded = evaluate(model, data, replicates=50, **how)
    monkeypatch.undo()
    for one, other in zip(sharded.systems, evaluate(model, data, **(how | FEW | {"out": None})).systems, strict=True):
        assert [control.measures for control in one.controls.values()] == [
            control.measures for control in other.controls.values()
        ]


def test_a_task_that_hears_nothing_is_refused_in_one_line(model, data, tmp_path, capsys) -> None:
    with pytest.raises(UsageError, match="the task lm hears no audio"):
        evaluate(model, data, "lm", controls=True)
    manifest = str(write_clips(tmp_path))
    words = ["evaluate", "nowhere", "--data", manifest, "--task", "lm", "--controls", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--controls: the task lm hears no audio" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_reference_for_all_is_refused_before_anything_is_decoded(model, tmp_path) -> None:
    path = write_clips(tmp_path, 4, text="yes")
    with pytest.raises(ManifestError, match="same reference"):
        evaluate(model, shoal.read_manifests([str(path)]), controls=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("build", "task"),
    [
        (qwen2_audio.BUILDS["Qwen2AudioForConditionalGeneration"], "asr"),
        (voxtral.BUILDS["VoxtralForConditionalGeneration"], "asr"),
        (whisper.BUILDS["WhisperForConditionalGeneration"], "asr"),
    ],
    ids=["qwen2_audio", "voxtral", "whisper"],
)
def test_stock_classes_are_controlled_without_knowing_them(build, task, data, tmp_path) -> None:
    stock = load_model(str(build.write(tmp_path / "model")), device="cpu", dtype="float32", trust_remote_code=False)
    scores = evaluate(stock, data, task, controls=True, replicates=20, max_new_tokens=6)
    assert list(scores.systems[0].controls) == ["shuffled", "silent"]


def answers(count: int, said, **how):
    """Outputs of `count` clips, each with a reference of its own of four words; `said` writes from the one heard."""
    references = [" ".join(random.Random(clip).sample(WORDS, 4)) for clip in range(count)]
    heard = {
        "right": list(range(count)),
        "shuffled": [(clip + 1) % count for clip in range(count)],
    }
    return {
        name: by_id(
            output(clip, references[clip], said(clip, references[partner]), audio_of=f"c{partner:03}", **how)
            for clip, partner in enumerate(partners)
        )
        for name, partners in heard.items()
    }


def scored(*systems, seed: int = 0) -> Scores:
    """Scores of systems as `answers` gives them."""
    names = [SystemIdentity(f"system{place}") for place in range(len(systems))]
    found = score_systems(
        names,
        [system["right"] for system in systems],
        list(systems[0]["right"]),
        tasks.get("asr"),
        ScoringSettings(replicates=200, seed=seed),
        controls=[{"shuffled": system["shuffled"]} for system in systems],
    )
    return Scores.model_construct(**vars(found), level=0.95, data=None, model=None)


def hears(clip: int, heard: str) -> str:
    """Hears three of four words."""
    return " ".join([*heard.split()[:3], "zulu"])


def guesses(clip: int, heard: str) -> str:
    return " ".join(random.Random(1000 + clip).sample(WORDS, 4))


def edit_distance(one: list[str], other: list[str]) -> int:
    """Levenshtein, the recursion itself."""
    if not one or not other:
        return len(one) + len(other)
    least = min(edit_distance(one[1:], other), edit_distance(one, other[1:])) + 1
    return min(least, edit_distance(one[1:], other[1:]) + (one[0] != other[0]))


def test_scores_are_those_of_a_slow_reference() -> None:
    """Rates and gap from sums in loops; the p-value from all ways to swap the two audios of every clip."""
    system = answers(8, lambda clip, heard: hears(clip, heard) if clip % 3 else guesses(clip, heard))
    control = scored(system).systems[0].controls["shuffled"]
    pairs = []
    nearer = 0.0
    for clip, right in system["right"].items():
        wrong = system["shuffled"][clip]
        partner = system["right"][wrong.fields["audio_of"]].text.split()
        own = right.text.split()
        pairs.append((edit_distance(own, right.pred_text.split()), edit_distance(own, wrong.pred_text.split())))
        from_partner = edit_distance(partner, wrong.pred_text.split())
        nearer += 1.0 if from_partner < pairs[-1][1] else 0.5 if from_partner == pairs[-1][1] else 0.0
    words = 4 * len(pairs)
    wer = control.measures["WER"]
    assert wer.value.value == pytest.approx(sum(wrong for _, wrong in pairs) / words, abs=1e-12)
    gap = sum(wrong - right for right, wrong in pairs)
    assert wer.delta.absolute.value == pytest.approx(gap / words, abs=1e-12)
    assert control.follows.value == pytest.approx(nearer / len(pairs), abs=1e-12)
    swaps = [
        sum(sign * (wrong - right) for sign, (right, wrong) in zip(signs, pairs, strict=True))
        for signs in product((1, -1), repeat=len(pairs))
    ]
    exact = sum(abs(swapped) >= abs(gap) for swapped in swaps) / len(swaps)
    assert wer.delta.p_value == pytest.approx(exact, abs=0.02)


def test_a_system_that_hears_is_told_from_one_that_guesses() -> None:
    scores = scored(answers(60, hears), answers(60, guesses))
    assert [listens(scores, system) for system in scores.systems] == ["listens", "cannot be told"]
    first, second = (system.controls["shuffled"] for system in scores.systems)
    assert first.follows.low > 0.9
    assert second.follows.low < 0.5 < second.follows.high
    heard, guessed = (control_sentence(scores, system) for system in scores.systems)
    assert heard.startswith("listens: with the wrong audio WER rises from 25.0")
    assert "of its answers are nearer to what that audio says (half is chance)" in heard
    assert guessed.startswith("cannot be told from one that does not listen: WER is ")
    p_values = [system.controls["shuffled"].measures["WER"].delta for system in scores.systems]
    assert p_values[0].p_holm == pytest.approx(2 * p_values[0].p_value)


def test_errors_on_one_clip_do_not_hide_that_a_system_follows_the_audio() -> None:
    system = answers(30, hears)
    looping = system["right"]["c003"]
    system["right"]["c003"] = output(3, looping.text, "zulu " * 400, **looping.fields)
    scores = scored(system)
    assert scores.systems[0].controls["shuffled"].measures["WER"].delta.p_holm > 0.05
    assert listens(scores, scores.systems[0]) == "follows"
    assert control_sentence(scores, scores.systems[0]).startswith("follows the audio, though its WER does not show it")


def test_clips_that_a_control_could_not_hear_are_left_out_of_it() -> None:
    system = answers(40, hears)
    del system["shuffled"]["c007"]
    scores = scored(system)
    assert scores.systems[0].controls["shuffled"].clips == 39
    assert scores.systems[0].measures["WER"].value.value == pytest.approx(0.25)


def test_so_few_speakers_that_nothing_can_be_told_are_said_so() -> None:
    scores = scored(answers(40, lambda clip, heard: hears(clip, heard), speaker="a"))
    assert listens(scores, scores.systems[0]) == "listens"  # one speaker: clips are drawn
    two = answers(40, hears)
    for said in two.values():
        for clip, one in said.items():
            said[clip] = output(int(clip[1:]), one.text, one.pred_text, speaker=f"s{int(clip[1:]) % 2}", **one.fields)
    scores = scored(two)
    assert listens(scores, scores.systems[0]) == "cannot be told"
    assert control_sentences(scores)[-1].startswith("no p-value can reach 0.05 here")


def test_a_model_that_is_deaf_is_told_and_every_document_says_so(tmp_path) -> None:
    deaf = loaded()
    with torch.no_grad():
        for parameter in deaf.model.projector.parameters():
            parameter.zero_()
    path = write_clips(tmp_path / "clips", 30)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "speaker": f"s{place}"}) + "\n" for place, row in enumerate(rows)))
    data = shoal.read_manifests([str(path)])
    scores = evaluate(deaf, data, plans=[plan(1)], controls=True, **FEW)
    assert [listens(scores, system) for system in scores.systems] == ["cannot be told"] * 2
    printed = "\n".join(map(str, summary(scores)))
    assert "full cannot be told from one that does not listen: WER is" in printed
    page = render([scores], out=tmp_path / "report.html").read_text()
    assert "Is it still listening?" in page
    assert "manual-1 cannot be told from one that does not listen" in page
    assert "fluent guessing was not tested" not in page
    plain = evaluate(deaf, data, **FEW)
    assert "fluent guessing was not tested" in render([plain], out=tmp_path / "plain.html").read_text()
