"""Raw outputs on disk: appended, resumed, never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.data.clip import Row
from shoal.errors import FileFormatError
from shoal.evaluate.outputs import Output, OutputFile, header_path, read_outputs

HEADER = {"model": {"fingerprint": "abc", "note": {"ref": "here"}}, "removed": [3, 4]}


def output(name="a", **changes):
    values = {
        "id": name,
        "audio_filepath": f"/data/{name}.wav",
        "duration": 1.5,
        "offset": 0.0,
        "text": "naïve café",
        "pred_text": "  raw, Untouched!\n",
        "lang": "en",
        "speaker": "s1",
        "tokens": 3,
        "truncated": False,
        "encode_seconds": 0.1,
        "prefill_seconds": 0.2,
        "decode_seconds": 0.3,
        "fields": {"audio_filepath": "a.wav", "room": "hall", "text": "naïve café"},
    }
    return Output(**{**values, **changes})


def row(name="a", **changes):
    values = {
        "id": name,
        "audio": Path(f"/elsewhere/{name}.wav"),
        "duration": 1.5,
        "lang": "en",
        "speaker": "s1",
        "fields": {"room": "hall", "audio_filepath": "x"},
    }
    return Row(**{**values, **changes})


def test_what_was_appended_is_read_back(tmp_path):
    path = tmp_path / "outputs" / "full.jsonl"
    OutputFile.open(path, HEADER).append([output("a"), output("b", pred_text="\u2028 line \r separators")])
    found = OutputFile.open(path, HEADER).outputs
    assert list(found) == ["a", "b"]
    assert found["a"].pred_text == "  raw, Untouched!\n"
    assert found["b"].pred_text == "\u2028 line \r separators"
    assert found["a"].fields["room"] == "hall"


def test_a_torn_last_line_is_dropped_and_the_file_mended(tmp_path):
    path = tmp_path / "full.jsonl"
    OutputFile.open(path, HEADER).append([output("a"), output("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(read_outputs(path)) == ["a"]
    resumed = OutputFile.open(path, HEADER)
    assert list(resumed.outputs) == ["a"]
    resumed.append([output("b")])
    assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "full.jsonl"
    OutputFile.open(path, HEADER).append([output("a"), output("b")])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"id": "b"}', lines[1], ""]))
    with pytest.raises(FileFormatError, match=r"full\.jsonl:2: not an output"):
        read_outputs(path)


def test_the_last_line_for_a_clip_counts(tmp_path):
    path = tmp_path / "full.jsonl"
    file = OutputFile.open(path, HEADER)
    file.append([output(pred_text="first")])
    file.append([output(pred_text="second")])
    assert OutputFile.open(path, HEADER).outputs["a"].pred_text == "second"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"removed": [3]}, "removed = [3, 4], this run has [3]"),
        ({"model": {"fingerprint": "xyz"}}, "model.fingerprint = 'abc', this run has 'xyz'"),
        ({"dtype": "bfloat16"}, "dtype = None, this run has 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, named):
    path = tmp_path / "full.jsonl"
    OutputFile.open(path, HEADER)
    with pytest.raises(FileFormatError) as error:
        OutputFile.open(path, {**HEADER, **change})
    assert named in str(error.value)
    assert "--out" in str(error.value)


def test_notes_may_differ(tmp_path):
    path = tmp_path / "full.jsonl"
    OutputFile.open(path, HEADER)
    OutputFile.open(path, {**HEADER, "model": {"fingerprint": "abc", "note": {"ref": "there"}}})
    assert "there" in header_path(path).read_text()


def test_outputs_without_their_header_are_refused(tmp_path):
    path = tmp_path / "full.jsonl"
    OutputFile.open(path, HEADER).append([output()])
    header_path(path).unlink()
    with pytest.raises(FileFormatError, match=r"full\.json: no such file"):
        OutputFile.open(path, HEADER)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(FileFormatError, match="cannot be written"):
        OutputFile.open(tmp_path / "outputs" / "full.jsonl", HEADER)
    file = OutputFile.open(tmp_path / "full.jsonl", HEADER)
    (tmp_path / "full.jsonl").mkdir()
    with pytest.raises(FileFormatError, match="cannot be written"):
        file.append([output()])


def test_an_output_answers_its_row_wherever_the_audio_lies():
    kept = Output.of_record(json.loads(output().line()))
    assert kept.answers(row(), "naïve café")
    assert not kept.answers(row(), "another text")
    assert not kept.answers(row(duration=1.6), "naïve café")
    assert not kept.answers(row(speaker="s2"), "naïve café")
    assert not kept.answers(row(fields={"room": "car"}), "naïve café")
    assert not kept.answers(row(audio=Path("/data/b.wav")), "naïve café")


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = OutputFile.open(None, HEADER)
    file.append([output()])
    assert file.has(row(), "naïve café")
    assert list(tmp_path.iterdir()) == []
