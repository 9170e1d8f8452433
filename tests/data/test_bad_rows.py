"""Every malformed row is named with its line and reason, in one line; one too many stops the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from shoal.data import read_manifests
from shoal.errors import ManifestError, UsageError

GOOD = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a tone"}

MALFORMED_LINES: dict[str, tuple[str | dict[str, Any], str]] = {
    "broken JSON": ('{"audio_filepath": "a.wav", ', "not JSON"),
    "not JSON at all": ("a.wav,1.0,a tone", "not JSON"),
    "number nobody can read": ('{"duration": ' + "9" * 5000 + "}", "not JSON"),
    "nested without end": ("[" * 100_000, "not JSON"),
    "array": ('["a.wav"]', "list, not an object"),
    "string": ('"a.wav"', "str, not an object"),
    "half a surrogate pair": ('{"audio_filepath": "a.wav", "text": "\\ud800"}', "surrogate"),
    "no audio_filepath": ({"text": "a tone"}, "no audio_filepath"),
    "audio_filepath a number": (GOOD | {"audio_filepath": 7}, "audio_filepath is not text: 7"),
    "audio_filepath empty": (GOOD | {"audio_filepath": " "}, "audio_filepath is empty"),
    "audio_filepath with a null": (GOOD | {"audio_filepath": "a\0b.wav"}, "cannot be a path"),
    "audio_filepath too long": (GOOD | {"audio_filepath": "a" * 5000}, "cannot be read"),
    "missing file": (GOOD | {"audio_filepath": "gone.wav"}, "no such audio file gone.wav"),
    "folder": (GOOD | {"audio_filepath": "."}, "is a folder"),
    "device": (GOOD | {"audio_filepath": "/dev/zero"}, "not a regular file"),
    "duration zero": (GOOD | {"duration": 0}, "duration is 0"),
    "duration negative": (GOOD | {"duration": -1.5}, "duration is -1.5"),
    "duration NaN": ('{"audio_filepath": "a.wav", "duration": NaN, "text": "a"}', "duration is nan"),
    "duration infinite": ('{"audio_filepath": "a.wav", "duration": 1e999, "text": "a"}', "duration is inf"),
    "duration huge": (GOOD | {"duration": 10**400}, "duration is a huge number"),
    "duration text": (GOOD | {"duration": "1.0"}, "duration is not a number"),
    "duration true": (GOOD | {"duration": True}, "duration is not a number"),
    "shorter than said": (GOOD | {"duration": 2.0}, "more than a.wav has (1.00 s"),
    "longer than said": (GOOD | {"duration": 0.5}, "a.wav lasts 1.00 s"),
    "offset negative": (GOOD | {"offset": -0.1}, "offset is -0.1"),
    "offset text": (GOOD | {"offset": "0"}, "offset is not a number"),
    "offset outside": (GOOD | {"offset": 1.5}, "offset 1.5 s is outside a.wav"),
    "segment over the end": (GOOD | {"offset": 0.5, "duration": 1.0}, "more than a.wav has (0.50 s"),
    "segment too short": (GOOD | {"offset": 0.5, "duration": 0.01}, "too short"),
    "no text": ({"audio_filepath": "a.wav"}, "no text"),
    "text null": (GOOD | {"text": None}, "no text"),
    "text blank": (GOOD | {"text": " \t"}, "text is empty"),
    "text a number": (GOOD | {"text": 12}, "text is not text: 12"),
    "text a list": (GOOD | {"text": ["a", "tone"]}, "text is not text"),
    "lang a number": (GOOD | {"lang": 1}, "lang is not text"),
    "speaker a list": (GOOD | {"speaker": []}, "speaker is not text"),
    "id a list": (GOOD | {"id": [1]}, "id is neither text nor a whole number"),
}


@pytest.mark.parametrize(("line", "reason"), MALFORMED_LINES.values(), ids=MALFORMED_LINES.keys())
def test_a_malformed_row_is_named(line, reason, tone, manifest) -> None:
    tone()
    path = manifest(GOOD, line)
    with pytest.raises(ManifestError) as caught:
        read_manifests(path)
    message = str(caught.value)
    assert reason in message
    assert f"{path}:2: " in message
    assert "\n" not in message
    assert message.endswith("mend the rows or raise --max-bad")


def write_nan(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan] * 8000), 16_000, subtype="FLOAT")


def write_infinite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.inf] * 8000), 16_000, subtype="DOUBLE")


def write_unscaled(path: Path) -> None:
    soundfile.write(path, np.array([100.0, -20_000.0] * 8000), 16_000, subtype="FLOAT")


def write_cut_flac(path: Path) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000)
    soundfile.write(path, noise, 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[:8000])


def write_cut_mp3(path: Path) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=48_000)
    soundfile.write(path, noise, 16_000, format="MP3")
    path.write_bytes(path.read_bytes()[:4000])


UNDECODABLE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "NaN samples": ("b.wav", write_nan, "NaN or infinite"),
    "infinite samples": ("b.wav", write_infinite, "NaN or infinite"),
    "unscaled samples": ("b.wav", write_unscaled, "not scaled to [-1, 1]"),
    "cut FLAC": ("b.flac", write_cut_flac, "b.flac"),
    "cut MP3": ("b.mp3", write_cut_mp3, "b.mp3"),
}


@pytest.mark.parametrize(("name", "write", "reason"), UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_samples_that_cannot_be_used_stop_the_run_when_they_are_decoded(
    name, write, reason, tone, manifest, tmp_path
) -> None:
    tone()
    write(tmp_path / name)
    path = manifest(GOOD, {"audio_filepath": name, "text": "a tone"})
    with pytest.raises(ManifestError) as caught:
        list(read_manifests(path).clips())
    assert reason in str(caught.value)
    assert f"{path}:2: " in str(caught.value)
    assert "\n" not in str(caught.value)


def write_text(path: Path) -> None:
    path.write_text("this is a text\n" * 100)


def write_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16_000, format="WAV")


def write_nothing(path: Path) -> None:
    path.touch()


def write_half_a_header(path: Path) -> None:
    path.write_bytes(b"RIFF\x10\0\0\0WAVE")


def write_one_sample(path: Path) -> None:
    soundfile.write(path, np.zeros(1), 16_000)


def write_long(path: Path) -> None:
    soundfile.write(path, np.zeros(8000 * 130, dtype=np.int16), 8000)


UNREADABLE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "text named wav": ("b.wav", write_text, "b.wav is not audio"),
    "text named mp3": ("b.mp3", write_text, "b.mp3 is not audio"),
    "text named raw": ("b.raw", write_text, "b.raw has no audio header"),
    "no samples": ("b.wav", write_no_samples, "b.wav holds no samples"),
    "empty file": ("b.wav", write_nothing, "b.wav is empty"),
    "half a header": ("b.wav", write_half_a_header, "b.wav is not audio"),
    "one sample": ("b.wav", write_one_sample, "b.wav is too short"),
    "absurdly long": ("b.wav", write_long, "b.wav is too long: 130.00 s"),
}


@pytest.mark.parametrize(("name", "write", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_audio_files_that_cannot_be_used_are_found_when_the_manifest_is_read(
    name, write, reason, tone, manifest, tmp_path
) -> None:
    tone()
    write(tmp_path / name)
    path = manifest(GOOD, {"audio_filepath": name, "text": "a tone"})
    with pytest.raises(ManifestError) as caught:
        read_manifests(path)
    assert f"{path}:2: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_audio_file_without_read_permission_is_a_bad_row(tone, manifest) -> None:
    tone().chmod(0)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifests(manifest(GOOD))


def test_an_id_may_not_repeat_within_a_manifest(tone, manifest) -> None:
    tone()
    path = manifest(GOOD | {"id": "x"}, GOOD | {"id": "y"}, GOOD | {"id": "x"})
    with pytest.raises(ManifestError, match=r"corpus\.jsonl:3: id 'x' stands on line 1 already"):
        read_manifests(path)


def test_bad_rows_within_the_limit_are_left_out_recorded_and_said(tone, manifest, caplog) -> None:
    tone()
    path = manifest(*[GOOD] * 3, GOOD | {"audio_filepath": "gone.wav"}, "{", *[GOOD] * 5)
    with caplog.at_level(logging.WARNING, logger="shoal.data"):
        dataset = read_manifests(path, max_bad=2)
    assert len(dataset.rows) == 8
    assert sorted(bad.line for bad in dataset.skipped) == [4, 5]
    assert dataset.info().skipped == dataset.skipped
    assert len(caplog.records) == 1
    assert "2 of 10 rows left out" in caplog.text
    assert f"{path}:4: no such audio file gone.wav" in caplog.text


def test_the_warning_goes_to_stderr_without_any_logging_set_up(tone, manifest, capsys, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("shoal.data"), "propagate", False)
    tone()
    read_manifests(manifest(GOOD, "{"), max_bad=1)
    captured = capsys.readouterr()
    assert "1 of 2 rows left out" in captured.err
    assert captured.out == ""


def test_only_the_first_five_bad_rows_are_listed(tone, manifest) -> None:
    tone()
    with pytest.raises(ManifestError) as caught:
        read_manifests(manifest(GOOD, *["{"] * 8))
    assert str(caught.value).count("not JSON") == 5
    assert "; and 3 more" in str(caught.value)


@pytest.mark.parametrize(("max_bad", "passes"), [(0.0, False), (0.09, False), (0.1, True), (1, True), (2, True)])
def test_the_limit_is_a_share_or_a_count(max_bad, passes, tone, manifest) -> None:
    tone()
    path = manifest(*[GOOD] * 9, GOOD | {"audio_filepath": "gone.wav"})
    if passes:
        assert len(read_manifests(path, max_bad=max_bad).rows) == 9
    else:
        with pytest.raises(ManifestError, match="1 of 10 rows"):
            read_manifests(path, max_bad=max_bad)


@pytest.mark.parametrize("max_bad", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_limit_that_means_nothing_is_refused(max_bad, manifest) -> None:
    with pytest.raises(UsageError, match="--max-bad"):
        read_manifests(manifest(GOOD), max_bad=max_bad)


def test_a_count_covers_bad_rows_of_every_kind(tone, manifest, tmp_path) -> None:
    tone()
    write_nan(tmp_path / "nan.wav")
    path = manifest(GOOD, "{", GOOD | {"audio_filepath": "gone.wav"}, {"audio_filepath": "nan.wav", "text": "n"})
    with pytest.raises(ManifestError, match="2 of"):
        read_manifests(path, max_bad=1)
    dataset = read_manifests(path, max_bad=2)
    with pytest.raises(ManifestError, match="3 of"):
        list(dataset.clips())


def test_a_row_whose_samples_are_bad_leaves_the_data_set_once(tone, manifest, tmp_path, caplog) -> None:
    tone()
    write_nan(tmp_path / "nan.wav")
    dataset = read_manifests(manifest(GOOD, {"audio_filepath": "nan.wav", "text": "n"}, GOOD), max_bad=1)
    rows = list(dataset.rows)
    assert dataset.info().clips == 3
    for _ in range(2):
        assert len(list(dataset.clips(rows))) == 2
    assert len(dataset.rows) == 2
    assert [bad.line for bad in dataset.skipped] == [2]
    assert dataset.info().clips == 2
    assert caplog.text.count("NaN") == 1


def test_a_data_set_without_any_usable_row_is_refused_whatever_the_limit(manifest) -> None:
    with pytest.raises(ManifestError, match=r"corpus\.jsonl: no usable row: .*gone\.wav"):
        read_manifests(manifest(GOOD | {"audio_filepath": "gone.wav"}), max_bad=5)
