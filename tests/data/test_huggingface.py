"""Data sets of the Hugging Face library, without any network."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from shoal.data import read_manifests
from shoal.errors import ManifestError, UsageError

datasets = pytest.importorskip("datasets")


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(round(seconds * rate), 0.25), rate, format="WAV")
    return buffer.getvalue()


def table(audio: list[Any], **columns: list[Any]) -> Any:
    made = datasets.Dataset.from_dict({"audio": audio, **columns})
    return made.cast_column("audio", datasets.Audio(decode=False))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved data set of two rows with the audio inside."""
    audio = [{"bytes": wav(), "path": "one.wav"}, {"bytes": wav(1.0), "path": "two.wav"}]
    made = table(audio, sentence=["eins", "zwei"], client_id=["s1", "s2"], locale=["de", "de"])
    made.cast_column("audio", datasets.Audio()).save_to_disk(tmp_path / "corpus")
    return tmp_path / "corpus"


def test_a_saved_data_set_is_read_and_decoded_by_us(saved) -> None:
    dataset = read_manifests(saved)
    assert [(row.id, row.text, row.speaker, row.lang) for row in dataset.rows] == [
        ("corpus:one", "eins", "s1", "de"),
        ("corpus:two", "zwei", "s2", "de"),
    ]
    assert [row.duration for row in dataset.rows] == [0.5, 1.0]
    assert [len(clip.samples) for clip in dataset.clips()] == [8000, 16_000]
    assert dataset.info().audio_decoder.startswith("libsndfile")


def test_audio_may_lie_in_files(tmp_path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    made = datasets.Dataset.from_dict({"audio": [str(tmp_path / "a.wav")], "text": ["eins"]})
    made.save_to_disk(tmp_path / "corpus")
    (clip,) = read_manifests(tmp_path / "corpus").clips()
    assert len(clip.samples) == 8000
    (tmp_path / "a.wav").unlink()
    with pytest.raises(ManifestError, match=r"corpus:1: .*a\.wav.* is not there"):
        read_manifests(tmp_path / "corpus")


def test_audio_may_be_an_array(tmp_path) -> None:
    audio = [{"array": [0.25] * 8000, "sampling_rate": 8000}]
    datasets.Dataset.from_dict({"audio": audio, "text": ["eins"]}).save_to_disk(tmp_path / "corpus")
    (clip,) = read_manifests(tmp_path / "corpus").clips()
    assert len(clip.samples) == 16_000


def test_rows_without_usable_audio_are_bad_rows(tmp_path) -> None:
    audio = [
        {"bytes": wav(), "path": None},
        {"bytes": b"nonsense", "path": None},
        {"bytes": None, "path": None},
    ]
    datasets.Dataset.from_dict({"audio": audio, "text": ["a", "b", "c"]}).save_to_disk(tmp_path / "corpus")
    dataset = read_manifests(tmp_path / "corpus", max_bad=2)
    assert [bad.line for bad in dataset.skipped] == [2, 3]
    assert "not audio" in dataset.skipped[0].reason
    assert "no audio bytes" in dataset.skipped[1].reason
    assert dataset.rows[0].id == "corpus:000000"


def test_every_split_of_a_saved_dictionary_is_read_and_can_be_chosen(tmp_path) -> None:
    one, two = (table([{"bytes": wav(), "path": f"{name}.wav"}], text=[name]) for name in "ab")
    datasets.DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "corpus")
    assert [row.fields["split"] for row in read_manifests(tmp_path / "corpus").rows] == ["train", "test"]
    assert [row.text for row in read_manifests(tmp_path / "corpus", where={"split": "test"}).rows] == ["b"]


def test_class_labels_become_their_names(tmp_path) -> None:
    made = table([{"bytes": wav(), "path": "a.wav"}], text=["a"], emotion=[1])
    made.cast_column("emotion", datasets.ClassLabel(names=["calm", "happy"])).save_to_disk(tmp_path / "corpus")
    assert read_manifests(tmp_path / "corpus").rows[0].fields["emotion"] == "happy"


def test_a_saved_format_does_not_matter(tmp_path) -> None:
    made = table([{"bytes": wav(), "path": "a.wav"}], text=["a"], age=[9]).with_format("numpy", columns=["age"])
    made.save_to_disk(tmp_path / "corpus")
    (row,) = read_manifests(tmp_path / "corpus").rows
    assert row.fields == {"text": "a", "age": 9, "audio_filepath": "a.wav"}


def test_a_filtered_table_keeps_rows_and_audio_together(tmp_path) -> None:
    audio = [{"bytes": wav(0.5 + index / 10), "path": f"{index}.wav"} for index in range(4)]
    made = table(audio, text=list("abcd")).select([3, 1])
    made.save_to_disk(tmp_path / "corpus")
    rows = read_manifests(tmp_path / "corpus").rows
    assert [(row.text, round(row.duration, 2)) for row in rows] == [("d", 0.8), ("b", 0.6)]
    assert [row.id for row in rows] == ["corpus:3", "corpus:1"]


def test_a_reference_reads_a_data_set_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split in ("train", "test"):
        table([{"bytes": wav(), "path": f"{split}.wav"}], text=[split]).to_parquet(folder / f"{split}.parquet")
    assert [row.text for row in read_manifests(f"hf:{folder}").rows] == ["train", "test"]
    assert [row.text for row in read_manifests(f"hf:{folder}:test").rows] == ["test"]
    assert [row.id for row in read_manifests(f"hf:{folder}:default:train").rows] == ["corpus:train"]
    with pytest.raises(ManifestError, match="cannot be loaded"):
        read_manifests(f"hf:{folder}:nonsense")


@pytest.mark.parametrize("reference", ["hf:", "hf:a:b:c:d", "hf:a::b"])
def test_a_malformed_reference_is_refused(reference) -> None:
    with pytest.raises(UsageError, match=r"hf:NAME\[:CONFIG\]\[:SPLIT\]"):
        read_manifests(reference)


def test_a_data_set_without_audio_is_refused_with_its_columns(tmp_path) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "wave": [1]}).save_to_disk(tmp_path / "corpus")
    with pytest.raises(ManifestError, match=r"no audio column \(columns: text, wave\)"):
        read_manifests(tmp_path / "corpus")


def test_an_empty_or_damaged_data_set_is_refused_in_one_line(tmp_path) -> None:
    table([], text=[]).save_to_disk(tmp_path / "empty")
    with pytest.raises(ManifestError, match="the data set"):
        read_manifests(tmp_path / "empty")
    table([{"bytes": wav(), "path": "a.wav"}], text=["a"]).save_to_disk(tmp_path / "damaged")
    (tmp_path / "damaged" / "state.json").write_text("{")
    with pytest.raises(ManifestError, match="cannot be loaded") as caught:
        read_manifests(tmp_path / "damaged")
    assert "\n" not in str(caught.value)


def test_without_the_library_one_line_says_what_to_install(saved, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for reference in (saved, "hf:someone/something"):
        with pytest.raises(UsageError, match=r"pip install 'shoal\[datasets\]'"):
            read_manifests(reference)
