"""Rows stay in their manifest: read when they are asked for, and the same as if all were in memory."""

from __future__ import annotations

import json
import os
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.data import Dataset, Rows, fingerprint, read_manifests
from shoal.data.texts import Texts
from shoal.errors import ManifestError, UsageError

GOOD = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a tone"}


@pytest.fixture
def mixed(tone, manifest, tmp_path) -> Dataset:
    """A manifest with blank lines, bad rows and rows without an id, and a folder."""
    tone()
    tone("folder/x.wav", seconds=0.5)
    (tmp_path / "folder" / "x.txt").write_text("from the folder")
    named = [GOOD | {"id": f"r{number}", "speaker": number % 3, "text": f"tön {number}"} for number in range(8)]
    path = manifest("\ufeff" + json.dumps(named[0]), "", *named[1:4], "{", "   ", *named[4:], GOOD)
    return read_manifests([path, tmp_path / "folder"], max_bad=3)


def test_rows_are_a_sequence(mixed) -> None:
    rows = mixed.rows
    expected = [*(f"r{number}" for number in range(8)), "corpus:a", "folder:x"]
    as_list = list(rows)
    assert [row.id for row in as_list] == expected == list(rows.ids())
    assert [row.line for row in as_list] == [1, 3, 4, 5, 8, 9, 10, 11, 12, 1]
    assert len(rows) == 10
    assert rows[3] == as_list[3]
    assert rows[-1] == as_list[-1]
    assert as_list[-1].text == "from the folder"
    assert list(reversed(rows)) == as_list[::-1]
    for part in (slice(2, 5), slice(None, None, -1), slice(-3, None), slice(1, 8, 3), slice(5, 5)):
        assert list(rows[part]) == as_list[part]
        assert isinstance(rows[part], Rows)
    assert list(rows[2:][1:3]) == as_list[3:5]
    assert rows.index(as_list[4]) == 4
    for place in (10, -11):
        with pytest.raises(IndexError):
            rows[place]


def test_the_record_is_that_of_the_same_rows_in_memory(mixed) -> None:
    in_memory = Dataset(mixed.manifests, list(mixed.rows), mixed.skipped)
    assert mixed.info() == in_memory.info()
    assert fingerprint(mixed.rows[2:6]) == fingerprint(list(mixed.rows)[2:6])


def test_some_rows_of_a_data_set_stay_on_the_disk(mixed) -> None:
    part = mixed.only(mixed.rows[1::2])
    assert isinstance(part.rows, Rows)
    assert [clip.id for clip in part.clips()] == ["r1", "r3", "r5", "r7", "folder:x"]


def test_a_row_leaves_and_what_was_taken_before_stays(mixed) -> None:
    before = mixed.rows
    mixed.max_bad = 5
    mixed._leave_out(before[4], "its samples are bad")
    assert [row.id for row in mixed.rows] == [row.id for row in before if row.id != "r4"]
    assert len(before) == 10
    assert mixed.info().clips == 9
    mixed._leave_out(before[4], "once more")
    assert len(mixed.rows) == 9


@pytest.mark.parametrize("change", ["a row more", "another text", "the time only", "cut"])
def test_a_manifest_that_changes_under_us_is_one_line(change, tone, manifest) -> None:
    tone()
    path = manifest(GOOD, GOOD)
    dataset = read_manifests(path)
    written = path.stat().st_mtime_ns + 10**9
    if change == "a row more":
        path.write_text(path.read_text() + json.dumps(GOOD) + "\n")
    if change == "another text":
        path.write_text(path.read_text().replace("a tone", "a song"))
    if change == "cut":
        os.truncate(path, 10)
    os.utime(path, ns=(written, written))
    with pytest.raises(ManifestError) as caught:
        list(dataset.rows)
    assert str(caught.value) == f"{path}: the file was changed while it was in use; run the command again"


def test_a_manifest_that_is_replaced_or_deleted_does_no_harm(tone, manifest) -> None:
    tone()
    path = manifest(GOOD, GOOD)
    dataset = read_manifests(path)
    manifest(GOOD | {"text": "another"}, name="new.jsonl").rename(path)
    assert [row.text for row in dataset.rows] == ["a tone"] * 2
    path.unlink()
    assert [row.text for row in dataset.rows] == ["a tone"] * 2
    with pytest.raises(ManifestError, match="cannot be read"):
        pickle.loads(pickle.dumps(dataset.rows))


def test_rows_can_be_sent_to_another_process(tone, manifest) -> None:
    tone()
    path = manifest(GOOD, GOOD)
    rows = read_manifests(path).rows
    sent = pickle.dumps(rows)
    assert list(pickle.loads(sent)) == list(rows)
    manifest(GOOD)
    with pytest.raises(ManifestError, match="was changed"):
        pickle.loads(sent)


def test_a_pipe_is_read_once_and_kept(tone, tmp_path) -> None:
    tone()
    pipe = tmp_path / "corpus.jsonl"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(2 * (json.dumps(GOOD) + "\n"),))
    writing.start()
    rows = read_manifests(pipe).rows
    writing.join()
    assert [row.id for row in rows] == ["corpus:a", "corpus:a#2"]
    assert [row.text for row in rows] == ["a tone"] * 2


def test_memory_holds_an_index_and_not_the_rows(tone, manifest) -> None:
    """Long rows take no more memory than short ones; each takes some 60 bytes and its id."""
    tone()
    count, held = 2000, {}
    for words in (1, 400):
        rows = [GOOD | {"id": f"utterance-{number}", "text": "word " * words} for number in range(count)]
        path = manifest(*rows)
        read_manifests(path)
        tracemalloc.start()
        dataset = read_manifests(path)
        held[words] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(dataset.rows) == count
    assert held[1] / count < 150
    assert held[400] < held[1] + 20_000


def test_a_filter_that_leaves_nothing_reads_the_manifest_again_for_its_message(tone, manifest) -> None:
    tone()
    path = manifest(GOOD | {"split": "a"}, "{", GOOD | {"split": "b"})
    with pytest.raises(UsageError, match=r"none of 2 rows has split=c \(values of split: a \(1\), b \(1\)\)"):
        read_manifests(path, where={"split": "c"}, max_bad=1)


def test_a_file_of_many_segments_is_looked_at_once(tone, manifest, monkeypatch) -> None:
    from shoal.data import checks

    looked: list[Path] = []
    real = checks.read_header
    monkeypatch.setattr(checks, "read_header", lambda row: looked.append(row.audio) or real(row))
    tone()
    tone("b.wav")
    segments = [GOOD | {"duration": 0.2, "offset": number / 10} for number in range(8)]
    read_manifests(manifest(*segments, GOOD | {"audio_filepath": "b.wav"}))
    assert sorted(path.name for path in looked) == ["a.wav", "b.wav"]


def test_rows_are_checked_alike_however_many_are_looked_at_together(tone, manifest, monkeypatch) -> None:
    lines: list[dict[str, object]] = [GOOD | {"audio_filepath": f"{name}.wav"} for name in "abcdefgh"]
    for name in "abdefh":
        tone(f"{name}.wav")
    tone("h.wav", seconds=2.0)
    tone("f.wav").write_text("no audio")
    found = []
    for group in (1, 3, 256):
        monkeypatch.setattr("shoal.data.manifest.AT_ONCE", group)
        for most in (2, 4096):
            monkeypatch.setattr("shoal.data.checks.MOST_LENGTHS", most)
            read = read_manifests(manifest(*lines, *lines), max_bad=8)
            found.append(([row.id for row in read.rows], read.skipped))
    assert len(found[0][0]) == 8
    assert [bad.line for bad in found[0][1]] == [3, 6, 7, 8, 11, 14, 15, 16]
    assert found[0][1][0].reason == "no such audio file c.wav"
    assert "f.wav is not audio that can be read" in found[0][1][1].reason
    assert all(each == found[0] for each in found)


def test_progress_is_told_when_looking_takes_long(tone, manifest, monkeypatch) -> None:
    tone()
    told: list[tuple[str, int, int]] = []
    path = manifest(GOOD, GOOD)
    read_manifests(path, progress=lambda *step: told.append(step))
    assert told == []
    monkeypatch.setattr("shoal.data.manifest.QUIET_SECONDS", -1.0)
    monkeypatch.setattr("shoal.data.manifest.AT_ONCE", 1)
    read_manifests(path, progress=lambda *step: told.append(step))
    assert told == [("look at audio", done, 2) for done in (0, 1, 2)]


@given(st.lists(st.text() | st.just("\udc80")))
def test_texts_are_a_list_of_str(texts) -> None:
    packed = Texts()
    for text in texts:
        packed.append(text)
    assert list(packed) == texts
    assert packed[1:] == texts[1:]
    assert [packed[-place] for place in range(1, len(texts) + 1)] == texts[::-1]
    with pytest.raises(IndexError):
        packed[len(texts)]


def test_rows_are_read_where_the_system_has_no_pread(tone, manifest, monkeypatch) -> None:
    """Windows has none; several threads read at once."""
    tone()
    rows = read_manifests(manifest(*(GOOD | {"id": str(number)} for number in range(50)))).rows
    expected = list(rows)
    monkeypatch.delattr(os, "pread")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rows.__getitem__, range(50))) == expected
