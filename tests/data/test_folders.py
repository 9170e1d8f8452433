"""A folder of audio with transcripts beside it."""

from __future__ import annotations

import pytest

from shoal.data import read_manifests
from shoal.errors import ManifestError


def test_transcripts_lie_beside_the_audio_in_any_depth(tone, tmp_path) -> None:
    for name, text in (("b.wav", "zwei\n"), ("a.flac", "\ufeffeins"), ("sub/c.WAV", "drei")):
        path = tone(f"corpus/{name}", format="FLAC" if name.endswith("flac") else "WAV")
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    (tmp_path / "corpus" / "notes.txt").write_text("no audio")
    rows = read_manifests(tmp_path / "corpus").rows
    assert [(row.id, row.text) for row in rows] == [
        ("corpus:a", "eins"),
        ("corpus:b", "zwei"),
        ("corpus:c", "drei"),
    ]
    assert rows[2].fields == {"audio_filepath": "sub/c.WAV", "text": "drei"}


def test_librispeech_transcripts_are_found(tone, tmp_path) -> None:
    tone("1272/128104/1272-128104-0000.flac")
    tone("1272/128104/1272-128104-0001.flac")
    chapter = tmp_path / "1272" / "128104"
    chapter.joinpath("1272-128104.trans.txt").write_text("1272-128104-0000 MISTER QUILTER\n1272-128104-0001 NOR IS\n")
    assert [row.text for row in read_manifests(tmp_path).rows] == ["MISTER QUILTER", "NOR IS"]


def test_audio_without_a_transcript_is_a_bad_row(tone, tmp_path) -> None:
    tone("corpus/a.wav").with_suffix(".txt").write_text("a")
    tone("corpus/b.wav")
    with pytest.raises(ManifestError, match="corpus:2: no text"):
        read_manifests(tmp_path / "corpus")
    assert len(read_manifests(tmp_path / "corpus", needs_text=False).rows) == 2


def test_audio_that_cannot_be_read_is_not_passed_over(tone, tmp_path) -> None:
    tone("corpus/a.wav").with_suffix(".txt").write_text("a")
    for name, content in (("b.m4a", "not audio"), ("b.txt", "b")):
        (tmp_path / "corpus" / name).write_text(content)
    with pytest.raises(ManifestError, match=r"corpus:2: b\.m4a is not audio"):
        read_manifests(tmp_path / "corpus")


def test_a_transcript_that_is_not_utf8_is_a_bad_row(tone, tmp_path) -> None:
    tone("corpus/a.wav").with_suffix(".txt").write_bytes("Tön".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"transcript of a\.wav cannot be read"):
        read_manifests(tmp_path / "corpus")
