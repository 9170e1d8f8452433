"""What a manifest as a whole must be."""

from __future__ import annotations

import json

import pytest

from shoal.data import read_manifests
from shoal.errors import ManifestError, UsageError

GOOD = {"audio_filepath": "a.wav", "duration": 1.0, "text": "ein Tön"}
LINE = json.dumps(GOOD, ensure_ascii=False)

MALFORMED_FILES = {
    "empty": (b"", "the manifest is empty"),
    "blank lines only": (b"\n  \r\n\n", "the manifest is empty"),
    "binary": (b"RIFF\0\0\0\0WAVE" * 50, "binary"),
    "gzip": (b"\x1f\x8b\x08\x00\x01\x02", "binary"),
    "latin-1": (LINE.encode("latin-1"), "not UTF-8"),
    "UTF-16": (LINE.encode("utf-16"), "UTF-16"),
    "JSON array": (f"[{LINE}]".encode(), "JSON array"),
}


@pytest.mark.parametrize(("content", "reason"), MALFORMED_FILES.values(), ids=MALFORMED_FILES.keys())
def test_a_file_that_is_no_manifest_is_refused_in_one_line(content, reason, tmp_path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        read_manifests(path, max_bad=10)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ref", ["gone.jsonl", "", "a\0b", "a" * 5000, "/dev/null"])
def test_a_manifest_that_is_not_there_is_refused(ref) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifests(ref)


def test_an_audio_file_given_as_manifest_is_refused(tone) -> None:
    with pytest.raises(ManifestError, match=r"a\.wav:1: this is a binary file"):
        read_manifests(tone())


def test_a_folder_without_audio_is_refused(tmp_path) -> None:
    with pytest.raises(ManifestError, match="no audio file"):
        read_manifests(tmp_path)


def test_no_manifest_and_the_same_one_twice_are_refused(tone, manifest) -> None:
    tone()
    path = manifest(GOOD)
    with pytest.raises(UsageError, match="no manifest given"):
        read_manifests([])
    with pytest.raises(UsageError, match="given twice"):
        read_manifests([path, str(path)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", ""])
def test_byte_order_marks_and_windows_line_ends_are_accepted(encoding, end, tone, tmp_path) -> None:
    tone()
    path = tmp_path / "corpus.jsonl"
    path.write_bytes((end or "\n").join([LINE, LINE]).encode(encoding) + end.encode())
    dataset = read_manifests(path)
    assert [row.text for row in dataset.rows] == ["ein Tön"] * 2
    assert dataset.skipped == []
