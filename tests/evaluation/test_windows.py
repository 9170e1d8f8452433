"""Evaluation goes in windows: memory is bounded, little is lost by a kill, the encoder runs once."""

from __future__ import annotations

import threading

import pytest
import torch
from test_evaluate import counting

from shoal import tasks
from shoal.data import Dataset
from shoal.errors import UsageError
from shoal.evaluation import decode_systems, decode_window, evaluate, window
from shoal.evaluation.decode_systems import SystemsDecoder, slots_that_fit
from shoal.evaluation.engine import Engine, memory
from shoal.evaluation.engine import run as engine_run
from shoal.evaluation.settings import DecodingSettings, TokenLimit
from shoal.evaluation.system_outputs import SystemOutputs
from shoal.evaluation.window import windows
from tiny_speech import plan

FEW = {"replicates": 20, "batch_size": 2, "max_new_tokens": 6}


def windows_of(model, data, places, *, slots):
    rows = data.rows
    return list(windows(model, data, rows, places, tasks.get("asr"), slots=slots))


def test_a_window_holds_a_multiple_of_the_slots_and_its_batches_are_longest_first(model, data, monkeypatch):
    monkeypatch.setattr(window, "WINDOW_BATCHES", 2)
    found = windows_of(model, data, [0, 1, 2, 4, 5], slots=2)
    rows = list(data.rows)
    assert [[row.id for row in each.rows] for each in found] == [
        [rows[place].id for place in places] for places in ([0, 1, 2, 4], [5])
    ]
    for each in found:
        lengths = [clip.row.duration for batch in each.batches for clip in batch.clips]
        assert lengths == sorted(lengths, reverse=True)
        assert all(len(batch.clips) <= 2 for batch in each.batches)


def test_a_window_ends_before_it_holds_too_much_audio(model, data, monkeypatch):
    monkeypatch.setattr(window, "WINDOW_SECONDS", 1.0)
    found = windows_of(model, data, range(6), slots=8)  # 0.3 0.4 | 0.5 | 0.6 | 0.7 | 0.8
    assert [len(each.rows) for each in found] == [2, 1, 1, 1, 1]


def test_rows_whose_audio_is_bad_are_in_no_batch(model, data):
    rows = list(data.rows)
    rows[1].audio.write_bytes(b"RIFF")
    data.max_bad = 3
    (only,) = windows_of(model, data, range(3), slots=4)
    assert [row.id for row in only.rows] == [row.id for row in rows[:3]]
    assert {clip.id for batch in only.batches for clip in batch.clips} == {rows[0].id, rows[2].id}


def test_an_encoder_without_memory_is_given_fewer_clips(model, data, monkeypatch):
    (whole,) = windows_of(model, data, range(6), slots=6)
    real, tried = window.embed, []

    def embed(loaded, clips, task):
        tried.append(len(clips))
        if len(clips) > 2:
            raise torch.OutOfMemoryError("no memory")
        return real(loaded, clips, task)

    monkeypatch.setattr(window, "embed", embed)
    (parts,) = windows_of(model, data, range(6), slots=6)
    assert tried == [6, 3, 1, 2, 3, 1, 2]
    assert parts.rows == whole.rows
    said = [clip.id for batch in parts.batches for clip in batch.clips]
    assert said == [clip.id for batch in whole.batches for clip in batch.clips]


def test_an_encoder_that_cannot_take_one_clip_says_so(model, data, monkeypatch):
    def embed(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(window, "embed", embed)
    with pytest.raises(torch.OutOfMemoryError):
        windows_of(model, data, range(2), slots=2)


def test_a_task_that_takes_no_speech_is_given_no_audio(model, data, monkeypatch):
    monkeypatch.setattr(Dataset, "clips", lambda *_: pytest.fail("audio was read"))
    read = window.read_clips(data, list(data.rows), tasks.get("lm"))
    assert [len(clip.samples) for clip in read] == [0] * 6


@pytest.mark.parametrize("batches", [1, 16])
def test_windows_change_nothing_that_is_said(model, data, monkeypatch, batches):
    whole = evaluate(model, data, plans=[plan(1)], **FEW)
    monkeypatch.setattr(window, "WINDOW_BATCHES", batches)
    seen = counting(monkeypatch)
    again = evaluate(model, data, plans=[plan(1)], **FEW)
    assert [system.measures["WER"].value for system in again.systems] == [
        system.measures["WER"].value for system in whole.systems
    ]
    assert sorted(seen) == sorted(row.id for row in data.rows)


def test_outputs_are_stored_in_small_groups_with_their_data_set(model, data, monkeypatch):
    stored = []
    real = SystemOutputs.append

    def append(self, outputs):
        stored.append(len(outputs))
        real(self, outputs)

    monkeypatch.setattr(SystemOutputs, "append", append)
    from shoal.evaluation.systems import open_systems

    systems = open_systems(model, [], against=None, out=None, header={})
    SystemsDecoder(data, tasks.get("asr"), TokenLimit(6), 2).run(systems)
    assert sum(stored) == 6
    assert max(stored) <= 2
    assert {systems[0].outputs.outputs[row.id].data for row in data.rows} == {"clips"}


def test_progress_counts_every_clip_of_every_system_once(model, data):
    seen = []
    evaluate(model, data, plans=[plan(1), plan(2)], progress=lambda *call: seen.append(call), **FEW)
    done = [call[1] for call in seen if call[0] == "transcribe"]
    assert done == sorted(set(done))
    assert done[-1] == 18
    assert {call[2] for call in seen if call[0] == "transcribe"} == {18}


def test_a_cache_of_another_kind_is_decoded_without_the_engine(model, data, monkeypatch):
    with_engine = evaluate(model, data, **FEW)
    monkeypatch.setattr(engine_run, "supported", lambda _: False)
    monkeypatch.setattr(Engine, "run", lambda *_: pytest.fail("the engine ran"))
    assert evaluate(model, data, **FEW).examples == with_engine.examples


def test_groups_are_given_when_full_or_old(monkeypatch):
    now = iter([0.0, 0.1, 1.0, 5.0, 6.0, 6.1])
    monkeypatch.setattr(decode_window.time, "monotonic", lambda: next(now))
    # The first is new at 0.0 and looked at at 0.1; the second makes two; the third is old; the fourth is the last.
    assert list(decode_window.grouped("abcd", most=2, seconds=2.0)) == [["a", "b"], ["c"], ["d"]]


def test_embedding_beside_the_decoding_says_the_same(model, data, monkeypatch):
    here = evaluate(model, data, plans=[plan(1)], **FEW)
    monkeypatch.setattr(window, "embeds_beside", lambda *_: True)
    threads, real = set(), window.prepare

    def prepare(*args, **kwargs):
        threads.add(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setattr(window, "prepare", prepare)
    beside = evaluate(model, data, plans=[plan(1)], **FEW)
    assert beside.examples == here.examples
    assert threads == {"shoal-prefetch_0"}


# How many at once


def test_as_many_rows_as_memory_allows(model, data):
    batch = window.embed(model, list(data.clips())[5:], tasks.get("asr"))
    embeds = batch.prepared.embeds[0]
    config = model.lm.config
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    position = 2 * config.num_hidden_layers * heads * size * 4
    assert memory.cache_bytes(model.lm, embeds) == (position, config.vocab_size)
    row = (len(embeds) + 10 + memory.SLACK) * position + 8 * config.vocab_size + 3 * embeds.nbytes
    fixed = memory.PREFILL_POSITIONS["cpu"] * memory.PREFILL_STATES * embeds[:1].nbytes

    def slots(free):
        return memory.fitting_slots(model.lm, embeds, 10, held=3, free=free)

    assert slots(int((fixed + 5.5 * row) / memory.SHARE)) == 5
    assert slots(0) == 1
    assert slots(1 << 50) == memory.MOST["cpu"]


def test_auto_looks_at_the_longest_clip_and_the_free_memory(model, data, monkeypatch):
    asked = []
    monkeypatch.setattr(
        decode_systems, "fitting_slots", lambda lm, embeds, limit, **how: asked.append((limit, how)) or 3
    )
    monkeypatch.setattr(decode_systems, "free_memory", lambda device: 77)
    rows = list(data.rows)
    assert slots_that_fit(model, data, rows[5], tasks.get("asr"), TokenLimit(9)) == 3
    assert asked == [(9, {"held": window.WINDOW_BATCHES, "free": 77})]


def test_auto_says_the_same_as_a_number(model, data):
    number = evaluate(model, data, **FEW)
    auto = evaluate(model, data, **{**FEW, "batch_size": "auto"})
    assert auto.examples == number.examples
    assert auto.decoding["batch_size"] == "auto"


def test_a_batch_size_is_a_number_or_auto():
    sizes = [DecodingSettings(batch_size=text).batch_size for text in ("auto", "12", 3)]
    assert sizes == ["auto", 12, 3]
    for text in ("0", "-1", "many", "1.5"):
        with pytest.raises(UsageError, match=r"--batch-size.*auto"):
            DecodingSettings.of(None, {"batch_size": text})
