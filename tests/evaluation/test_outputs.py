"""Raw outputs on disk: appended, resumed, never mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from full_run import examples
from shoal.data.clip import Row
from shoal.errors import FileFormatError
from shoal.evaluation import indexed_outputs, line_index
from shoal.evaluation.system_outputs import Output, SystemOutputs, header_path, read_outputs

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
    SystemOutputs.open(path, HEADER).append([output("a"), output("b", pred_text="\u2028 line \r separators")])
    found = SystemOutputs.open(path, HEADER).outputs
    assert list(found) == ["a", "b"]
    assert found["a"].pred_text == "  raw, Untouched!\n"
    assert found["b"].pred_text == "\u2028 line \r separators"
    assert found["a"].fields["room"] == "hall"


def test_a_torn_last_line_is_dropped_and_the_file_mended(tmp_path):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER).append([output("a"), output("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(read_outputs(path)) == ["a"]
    resumed = SystemOutputs.open(path, HEADER)
    assert list(resumed.outputs) == ["a"]
    resumed.append([output("b")])
    assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER).append([output("a"), output("b")])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"id": "b"}', lines[1], ""]))
    with pytest.raises(FileFormatError, match=r"full\.jsonl:2: not an output"):
        read_outputs(path)


def test_the_last_line_for_a_clip_counts(tmp_path):
    path = tmp_path / "full.jsonl"
    file = SystemOutputs.open(path, HEADER)
    file.append([output(pred_text="first")])
    file.append([output(pred_text="second")])
    assert SystemOutputs.open(path, HEADER).outputs["a"].pred_text == "second"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"removed": [3]}, "removed [3, 4], not [3]"),
        ({"model": {"fingerprint": "xyz"}}, 'model.fingerprint "abc", not "xyz"'),
        ({"dtype": "bfloat16"}, 'dtype null, not "bfloat16"'),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, named):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER)
    with pytest.raises(FileFormatError) as error:
        SystemOutputs.open(path, {**HEADER, **change})
    assert named in str(error.value)
    assert "--out" in str(error.value)


def test_notes_may_differ(tmp_path):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER)
    SystemOutputs.open(path, {**HEADER, "model": {"fingerprint": "abc", "note": {"ref": "there"}}})
    assert "there" in header_path(path).read_text()


def test_outputs_without_their_header_are_refused(tmp_path):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER).append([output()])
    header_path(path).unlink()
    with pytest.raises(FileFormatError, match=r"full\.json: no such file"):
        SystemOutputs.open(path, HEADER)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(FileFormatError, match="cannot be written"):
        SystemOutputs.open(tmp_path / "outputs" / "full.jsonl", HEADER)
    file = SystemOutputs.open(tmp_path / "full.jsonl", HEADER)
    (tmp_path / "full.jsonl").mkdir()
    with pytest.raises(FileFormatError, match="cannot be written"):
        file.append([output()])


@pytest.fixture(params=["on the disk", "read again", "in memory"])
def file(request, tmp_path):
    """Holds the output of `a`."""
    path = None if request.param == "in memory" else tmp_path / "full.jsonl"
    made = SystemOutputs.open(path, HEADER)
    made.append([output()])
    return SystemOutputs.open(path, HEADER) if request.param == "read again" else made


def test_an_output_answers_its_row_wherever_the_audio_lies(file):
    assert file.has(row(), "naïve café")
    assert not file.has(row(), "another text")
    assert not file.has(row("b"), "naïve café")
    assert not file.has(row(duration=1.6), "naïve café")
    assert not file.has(row(speaker="s2"), "naïve café")
    assert not file.has(row(fields={"room": "car"}), "naïve café")
    assert not file.has(row(audio=Path("/data/b.wav")), "naïve café")


@given(
    said=st.lists(st.lists(st.tuples(st.sampled_from("abcdefg"), st.text(max_size=4)), max_size=4), max_size=8),
    fresh=st.sampled_from([0, 2, 1024]),
)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_is_a_dictionary_of_the_last_lines(said, fresh, tmp_path, monkeypatch):
    """However many lines are sorted in already; the reference is a plain `dict`."""
    monkeypatch.setattr(line_index, "FRESH", fresh)
    path = tmp_path / "full.jsonl"
    path.unlink(missing_ok=True)
    file, expected = SystemOutputs.open(path, HEADER), {}
    for group in said:
        made = [output(name, pred_text=text) for name, text in group]
        file.append(made)
        for each in made:
            expected.pop(each.id, None)
            expected[each.id] = each.pred_text
    for found in (file.outputs, read_outputs(path)):
        assert len(found) == len(expected)
        assert list(found) == list(expected)
        assert [each.pred_text for each in found.values()] == list(expected.values())
        assert {name: each.pred_text for name, each in found.items()} == expected
        assert {name: found[name].pred_text for name in expected} == expected
        assert [name in found for name in "abcdefgh"] == [name in expected for name in "abcdefgh"]
        with pytest.raises(KeyError):
            found["h"]


def test_everything_in_an_output_comes_back(tmp_path):
    whole = output(choices={"yes": -0.5, "no": -1.0}, loss=(3.5, 2), data="corpus", speaker=None, truncated=True)
    SystemOutputs.open(tmp_path / "full.jsonl", HEADER).append([whole])
    found = read_outputs(tmp_path / "full.jsonl")["a"]
    assert replace(found, fields={}) == replace(whole, fields={})


def test_outputs_are_read_from_the_file_and_not_kept(tmp_path):
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER).append([output(pred_text="one")])
    found = read_outputs(path)
    path.write_text(path.read_text().replace("one", "two"))
    assert found["a"].pred_text == "two"
    path.write_text("shorter\n")
    with pytest.raises(FileFormatError, match="changed while they were in use"):
        found["a"]


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_cut_line_that_is_longer_than_a_chunk_is_removed(left, tmp_path, monkeypatch):
    monkeypatch.setattr(indexed_outputs, "CHUNK", 16)
    path = tmp_path / "full.jsonl"
    SystemOutputs.open(path, HEADER).append([output(f"whole{number}") for number in range(left)])
    whole = path.read_bytes() if left else b""
    path.write_bytes(whole + output("cut").line().encode()[:-1])
    assert len(SystemOutputs.open(path, HEADER).outputs) == left
    assert path.read_bytes() == whole


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = SystemOutputs.open(None, HEADER)
    file.append([output()])
    assert file.has(row(), "naïve café")
    assert list(tmp_path.iterdir()) == []
