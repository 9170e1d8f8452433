"""States of the encoder are what the model computes, are computed once, and survive a kill at any point."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_llm_parts import tiny

from shoal.data import read_manifests
from shoal.errors import FileFormatError, InputError, MeasureError, UsageError
from shoal.models.speech_llm import SpeechLLM, SpeechLLMProcessor
from shoal.training.augment import PLAIN, Variant, at_speed, masked
from shoal.training.encoder_states import EncoderStates
from shoal.training.state_files import StateFiles
from tiny_speech import dataset, write_clips

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def parts():
    return tiny()


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "audio")


@pytest.fixture
def encoded(parts):
    """Counts the windows that pass through the encoder (one a clip here)."""
    counts = []
    hook = parts[0].encoder.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    yield counts
    hook.remove()


def store(parts, tmp_path, **options):
    return EncoderStates(*parts, tmp_path / "states", **options)


def states(kept, refs):
    """What is kept, by row and variant."""
    return {name: kept.files.read([ref]) for name, ref in refs.items()}


def assert_same(left, right, **tolerance):
    assert left.keys() == right.keys()
    for name, state in left.items():
        np.testing.assert_allclose(
            state.astype(float), right[name].astype(float), **({"atol": 2e-3} | tolerance), err_msg=str(name)
        )


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "wavlm-group"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_projecting_what_was_read_gives_the_audio_features(tmp_path, encoder, dtype):
    parts = model, processor = tiny(encoder)
    data = dataset(tmp_path / "audio")
    kept = store(parts, tmp_path, batch_size=4, dtype=dtype)
    refs = kept.ensure(data, data.rows)
    atol = 3e-3 if dtype == torch.float16 else 1e-5
    with torch.inference_mode():
        for clip in data.clips():
            read = kept.files.read([refs[clip.id, PLAIN]])
            assert (read.shape[1], torch.from_numpy(read).dtype) == (kept.files.size, dtype)
            wanted = model.get_audio_features(**processor.audio_inputs([clip.samples]))[0]
            found = model.projector([torch.from_numpy(read).float()])[0]
            torch.testing.assert_close(found, wanted, atol=atol, rtol=atol)


def test_reading_several_gives_one_array_in_the_order_asked_for(parts, tmp_path, data):
    kept = store(parts, tmp_path)
    refs = list(kept.ensure(data, data.rows).values())[::-1]
    whole = kept.files.read(refs)
    assert whole.dtype == np.float16
    assert whole.shape == (sum(ref.frames for ref in refs), kept.files.size)
    assert np.array_equal(whole, np.concatenate([kept.files.read([ref]) for ref in refs]))
    assert kept.files.read([]).shape == (0, kept.files.size)
    whole[:] = 0
    assert kept.files.read(refs).any()


def test_nothing_is_computed_twice(parts, tmp_path, data, encoded):
    told = []
    first = store(parts, tmp_path)
    found = first.ensure(data, data.rows, progress=lambda *step: told.append(step))
    assert sum(encoded) == 6
    assert told[-1] == ("encode", 6, 6)
    assert first.ensure(data, data.rows) == found
    again = store(parts, tmp_path)
    assert again.ensure(data, data.rows, progress=lambda *_: pytest.fail("nothing is missing")) == found
    assert sum(encoded) == 6
    assert_same(states(first, found), states(again, found), atol=0)


def test_another_manifest_that_names_the_same_audio_reuses_it(parts, tmp_path, data, encoded):
    store(parts, tmp_path).ensure(data, data.rows)
    manifest = tmp_path / "other.jsonl"
    rows = [json.loads(line) for line in (tmp_path / "audio" / "manifest.jsonl").read_text().splitlines()]
    lines = [row | {"audio_filepath": f"audio/{row['audio_filepath']}", "text": "else"} for row in rows]
    part = rows[5] | {"audio_filepath": "audio/clip5.wav", "offset": 0.1, "duration": 0.3}
    manifest.write_text("\n".join(map(json.dumps, [*lines, part])))
    other = read_manifests([str(manifest)])
    assert len(store(parts, tmp_path).ensure(other, other.rows)) == 7
    assert sum(encoded) == 7


def test_rows_with_the_same_audio_share_a_state(parts, tmp_path, data, encoded):
    (tmp_path / "audio" / "copy.wav").write_bytes((tmp_path / "audio" / "clip0.wav").read_bytes())
    manifest = tmp_path / "audio" / "twice.jsonl"
    lines = [{"audio_filepath": name, "duration": 0.3, "text": "x"} for name in ("clip0.wav", "copy.wav")]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    twice = read_manifests([str(manifest)])
    refs = store(parts, tmp_path).ensure(twice, twice.rows)
    assert (len(refs), len(set(refs.values())), sum(encoded)) == (2, 1, 1)


def test_changed_audio_under_the_same_name_is_encoded_anew(parts, tmp_path, data, encoded):
    kept = store(parts, tmp_path)
    before = kept.ensure(data, data.rows[:1])
    audio = data.rows[0].audio
    audio.write_bytes(data.rows[5].audio.read_bytes())
    after = kept.ensure(data, data.rows[:1])
    assert before != after
    assert sum(encoded) == 2


def test_another_encoder_reuses_nothing(parts, tmp_path, data):
    kept = store(parts, tmp_path)
    kept.ensure(data, data.rows[:1])
    other, processor = tiny()
    with torch.no_grad():
        other.encoder.layers[0].fc1.weight.mul_(2)
    strange = store((other, processor), tmp_path)
    windows = []
    other.encoder.register_forward_hook(lambda *_: windows.append(1))
    strange.ensure(data, data.rows[:1])
    assert windows
    assert strange.folder != kept.folder
    assert store(parts, tmp_path, dtype=torch.float32).folder != kept.folder


def test_another_feature_extractor_reuses_nothing(parts, tmp_path):
    model, processor = tiny()
    processor.feature_extractor.dither = 0.5
    assert store((model, processor), tmp_path).folder != store(parts, tmp_path).folder


def test_a_saved_and_loaded_model_finds_its_states(parts, tmp_path):
    for part in tiny():
        part.save_pretrained(tmp_path / "model")
    again = SpeechLLM.from_pretrained(tmp_path / "model")
    loaded = again, SpeechLLMProcessor.from_pretrained(tmp_path / "model")
    assert store(loaded, tmp_path).folder == store(parts, tmp_path).folder


def test_a_trained_projector_changes_no_key(parts, tmp_path):
    other = tiny()
    with torch.no_grad():
        other[0].projector.output.weight.zero_()
    assert store(other, tmp_path).folder == store(parts, tmp_path).folder


def paths(kept):
    """The files of states, in the order of their names."""
    return sorted(kept.folder.rglob("*.npy"))


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("size", [0, 1, 100, 130, 400])
def test_files_cut_anywhere_are_computed_again(parts, tmp_path, data, encoded, count, size):
    kept = store(parts, tmp_path, batch_size=2)
    wanted = states(kept, kept.ensure(data, data.rows))
    whole = {path: path.read_bytes() for path in paths(kept)}
    assert (len(whole), min(map(len, whole.values()))) > (5, 400)
    for path in list(whole)[:count]:
        os.truncate(path, size)
    again = store(parts, tmp_path, batch_size=2)
    assert_same(states(again, again.ensure(data, data.rows)), wanted)
    fresh = store(parts, tmp_path)
    assert_same(states(fresh, fresh.ensure(data, data.rows)), wanted)
    assert [len(path.read_bytes()) for path in paths(kept)] == list(map(len, whole.values()))
    assert sum(encoded) == 6 + count


def test_a_state_whose_data_is_lost_is_never_taken_for_another(parts, tmp_path, data):
    kept = store(parts, tmp_path, batch_size=1)
    wanted = states(kept, kept.ensure(data, data.rows))
    for path in paths(kept):
        os.truncate(path, 0)
    part = store(parts, tmp_path, batch_size=1)
    part.ensure(data, data.rows[:3])
    again = store(parts, tmp_path)
    refs = again.ensure(data, data.rows)
    assert_same(states(again, refs), wanted)


def test_a_file_that_is_gone_is_computed_again(parts, tmp_path, data):
    kept = store(parts, tmp_path)
    refs = kept.ensure(data, data.rows)
    wanted = states(kept, refs)
    paths(kept)[0].unlink()
    lost = store(parts, tmp_path)
    with pytest.raises(FileFormatError, match="gone or cut off; run again"):
        kept.files.read(list(refs.values()))
    assert_same(states(lost, lost.ensure(data, data.rows)), wanted)


def test_each_state_is_a_file_of_its_own(tmp_path):
    random = np.random.default_rng(0)
    made = {f"{number:064x}": random.standard_normal((7, 4)).astype(np.float16) for number in range(10)}
    files = StateFiles(tmp_path, 4, np.float16)
    for key, state in made.items():
        files.write(key, state)
    (tmp_path / "00" / f".{1:064x}.npy.99.tmp").write_bytes(b"left by a kill")
    again = StateFiles(tmp_path, 4, np.float16)
    read = again.read([again.get(key) for key in made])
    assert np.array_equal(read, np.concatenate(list(made.values())))
    assert {path.stem for path in tmp_path.rglob("*.npy")} == made.keys()
    assert again.get("f" * 64) is None


def test_ranks_write_apart_and_read_each_other(parts, tmp_path, data, encoded):
    first, second = store(parts, tmp_path), store(parts, tmp_path)
    assert len(first.ensure(data, data.rows, rank=0, world=2)) == 3
    assert len(second.ensure(data, data.rows, rank=1, world=2)) == 6
    known = first.ensure(data, data.rows[::2], rank=0, world=2)
    refs = first.ensure(data, data.rows, rank=0, world=2)
    assert sum(encoded) == 6
    assert all(refs[name] == ref for name, ref in known.items())
    assert len(paths(first)) == 6
    alone = EncoderStates(*parts, tmp_path / "alone")
    assert_same(states(first, refs), states(alone, alone.ensure(data, data.rows)))
    assert store(parts, tmp_path).ensure(data, data.rows).keys() == refs.keys()


def test_processes_that_write_the_same_state_leave_it_whole(tmp_path):
    state = np.arange(60_000, dtype=np.float16).reshape(300, 200)
    children = []
    for _ in range(2):
        if not (child := os.fork()):
            writer = StateFiles(tmp_path, 200, np.float16)
            for _ in range(100):
                writer.write("k" * 64, state)
            os._exit(0)
        children.append(child)
    seen = 0
    while os.waitpid(children[1], os.WNOHANG) == (0, 0):
        reader = StateFiles(tmp_path, 200, np.float16)
        if (ref := reader.get("k" * 64)) is not None:
            assert np.array_equal(reader.read([ref]), state)
            seen += 1
    assert os.waitpid(children[0], 0)[1] == 0
    assert seen
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["k" * 64 + ".npy"]


def test_what_another_process_has_computed_meanwhile_is_not_computed_again(parts, tmp_path, data, encoded):
    kept, other = store(parts, tmp_path, batch_size=1), store(parts, tmp_path)

    def meanwhile(what, done, total):
        if done == 1:
            other.ensure(data, data.rows)

    refs = kept.ensure(data, data.rows, progress=meanwhile)
    assert (len(refs), sum(encoded)) == (6, 6)


def test_neither_batch_nor_order_changes_a_state(parts, tmp_path, data):
    variants = [PLAIN, Variant(0.9), Variant(masks=1)]
    found = []
    for size, rows in ((1, data.rows), (6, data.rows[::-1])):
        kept = EncoderStates(*parts, tmp_path / str(size), batch_size=size)
        found.append(states(kept, kept.ensure(data, rows, variants)))
    assert_same({name: found[1][name] for name in found[0]}, found[0])


@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_another_speed_gives_another_length_and_other_states(tmp_path, encoder):
    parts, data = tiny(encoder), dataset(tmp_path / "audio")
    kept = store(parts, tmp_path)
    slow, fast = Variant(0.8), Variant(1.25)
    refs = kept.ensure(data, data.rows, [slow, PLAIN, fast])
    for row in data.rows:
        lengths = {way.speed: refs[row.id, way].frames for way in (slow, PLAIN, fast)}
        for speed, frames in lengths.items():
            assert abs(frames - row.duration / 0.02 / speed) <= 2
        assert lengths[0.8] > lengths[1.0] > lengths[1.25]


def test_a_speed_moves_the_pitch():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = at_speed(tone, 1.25)
    assert len(faster) == 12_800
    assert np.abs(np.fft.rfft(faster)).argmax() * 16_000 / len(faster) == pytest.approx(1250, abs=2)
    assert at_speed(tone, 1.0) is tone


def test_masks_are_the_same_every_time_and_differ_by_draw_and_clip(parts, tmp_path, data):
    variants = [PLAIN, *(Variant(masks=draw) for draw in (1, 2, 3))]
    first, second = (EncoderStates(*parts, tmp_path / name) for name in "ab")
    found = states(first, first.ensure(data, data.rows, variants))
    assert_same(found, states(second, second.ensure(data, data.rows, variants)), atol=0)
    for row in data.rows:
        each = [found[row.id, variant] for variant in variants]
        assert len({state.shape for state in each}) == 1
        assert len({state.tobytes() for state in each}) == 4


def test_masks_stay_in_the_clip_and_within_their_widths():
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.standard_normal((3, 80, 100)).astype(np.float32))
    valid, fill = 230, features.transpose(0, 1).reshape(80, 300)[:, :230].mean()
    whole, widths, lengths = features.transpose(0, 1).reshape(80, 300), [], []
    for seed in range(300):
        mel = masked(features, valid, seed).transpose(0, 1).reshape(80, 300)
        changed = mel != whole
        assert not changed[:, valid:].any()
        assert torch.all(mel[changed] == fill)
        mels, frames = changed[:, :valid].all(1), changed[:, :valid].all(0)
        assert torch.equal(changed[:, :valid], mels[:, None] | frames[None])
        widths.append(int(mels.sum()))
        lengths.append(int(frames.sum()))
    assert 27 < max(widths) <= 54
    assert 46 < max(lengths) <= 92
    # Two masks of 0 … 27 mels on average, and of 0 … 46 frames, less what overlaps.
    assert np.mean(widths) == pytest.approx(27 - 27**2 / 4 / 80, abs=2.5)
    assert np.mean(lengths) == pytest.approx(46 - 46**2 / 4 / 230, abs=3.5)
    assert torch.equal(features.transpose(0, 1).reshape(80, 300), whole)


def test_masks_fit_the_shortest_clip():
    features = torch.randn(1, 128, 100)
    for valid in (1, 2, 7):
        assert torch.equal(masked(features, valid, 0)[..., valid:], features[..., valid:])


def test_masks_are_refused_where_there_is_no_log_mel(tmp_path):
    data = dataset(tmp_path / "audio")
    with pytest.raises(UsageError, match=r"\(wavlm\) reads the waveform.* leave out the masks"):
        store(tiny("wavlm"), tmp_path).ensure(data, data.rows, [Variant(masks=1)])


@pytest.mark.parametrize("wrong", [{"speed": 0.5}, {"speed": 2}, {"speed": math.nan}, {"masks": -1}])
def test_a_variant_out_of_range_is_refused(wrong):
    with pytest.raises(UsageError):
        Variant(**wrong)


def test_what_cannot_be_served_is_refused(parts, tmp_path, data):
    with pytest.raises(UsageError, match="no rank 2 of 2"):
        store(parts, tmp_path).ensure(data, data.rows, rank=2, world=2)
    with pytest.raises(UsageError, match="bfloat16"):
        store(parts, tmp_path, dtype=torch.bfloat16)


def test_rows_whose_audio_is_bad_are_left_out(parts, tmp_path, data, encoded):
    data.max_bad = 3
    data.rows[2].audio.write_bytes(b"no audio")
    data.rows[4].audio.unlink()
    rows = list(data.rows)
    kept = store(parts, tmp_path)
    for _ in range(2):
        refs = kept.ensure(data, rows)
        assert [name for name, _ in refs] == [rows[number].id for number in (0, 1, 3, 5)]
        assert {bad.line for bad in data.skipped} == {3, 5}
        assert len(data.rows) == 4
    assert sum(encoded) == 4


def test_the_encoder_evaluates_and_keeps_its_mode(parts, tmp_path, data):
    model, processor = tiny()
    model.config.encoder_config.dropout = model.encoder.dropout = 0.5
    model.train()
    model.encoder.layers[0].eval()
    before = [part.training for part in model.modules()]
    kept = store((model, processor), tmp_path)
    refs = kept.ensure(data, data.rows[:1])
    assert [part.training for part in model.modules()] == before
    plain = store(parts, tmp_path)
    assert_same(states(kept, refs), states(plain, plain.ensure(data, data.rows[:1])))


@pytest.mark.parametrize("value", [math.nan, 1e6])
def test_a_state_that_is_not_a_number_names_its_clip(tmp_path, data, value):
    model, processor = tiny()
    with torch.no_grad():
        model.encoder.layer_norm.bias[3] = value
    kept = store((model, processor), tmp_path)
    with pytest.raises(MeasureError, match=r"manifest.jsonl:6: .* \(clip5.wav\) are not finite in float16"):
        kept.ensure(data, data.rows)
    assert not paths(kept)


def test_a_full_disk_is_one_line_and_what_was_finished_stays(parts, tmp_path, data, monkeypatch, encoded):
    kept, save, calls = store(parts, tmp_path, batch_size=2), np.save, []

    def full(file, state):
        calls.append(file)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, state)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match=r"the disk is full; free some space"):
        kept.ensure(data, data.rows)
    assert len(paths(kept)) == 3
    refs = kept.ensure(data, data.rows)
    assert (len(refs), sum(encoded)) == (6, 7)
    whole = EncoderStates(*parts, tmp_path / "whole")
    assert_same(states(kept, refs), states(whole, whole.ensure(data, data.rows)))


def test_a_folder_that_cannot_be_written_is_one_line(parts, tmp_path, data):
    (tmp_path / "states").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        store(parts, tmp_path).ensure(data, data.rows)


KILLED = """
import sys, time
from pathlib import Path

from speech_llm_parts import tiny

from shoal.data import read_manifests
from shoal.training.encoder_states import EncoderStates

manifest, folder = sys.argv[1:]
data = read_manifests([manifest])
store = EncoderStates(*tiny(), Path(folder), batch_size=1)
store.ensure(data, data.rows, progress=lambda what, done, total: time.sleep(0.2))
"""


def test_after_a_kill_only_what_was_not_finished_is_computed(parts, tmp_path, encoded):
    manifest = write_clips(tmp_path / "audio", 12)
    data = read_manifests([str(manifest)])
    kept = store(parts, tmp_path, batch_size=1)
    path = os.pathsep.join(str(ROOT / part) for part in ("src", "tests", "tests/models"))
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(manifest), str(tmp_path / "states")],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    try:
        while len(paths(kept)) < 3:
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    finished = len(paths(kept))
    refs = kept.ensure(data, data.rows)
    assert 3 <= finished < 12
    assert (len(refs), sum(encoded)) == (12, 12 - finished)
    whole = EncoderStates(*parts, tmp_path / "whole")
    assert_same(states(kept, refs), states(whole, whole.ensure(data, data.rows)))
