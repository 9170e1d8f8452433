"""From a file to 16 kHz mono float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from shoal.data import Row, load_audio, read_manifests
from shoal.demo import clips_manifest
from shoal.errors import AudioError


def row_of(path: Path, *, offset: float = 0.0, duration: float = 1.0) -> Row:
    return Row(id="r", audio=path, duration=duration, offset=offset, manifest="m.jsonl", line=4)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.au", "a.caf", "a.w64"])
def test_every_format_gives_the_same_tone(name, tone) -> None:
    how = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    clip = load_audio(row_of(tone(name, rate=16_000, **how)))
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == (16_000,)
    spectrum = np.abs(np.fft.rfft(clip.samples))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    # lossy codecs overshoot at the ends
    assert np.abs(clip.samples[1600:-1600]).max() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_every_rate_becomes_16_khz(rate, tone) -> None:
    samples = load_audio(row_of(tone(rate=rate))).samples
    assert abs(len(samples) - 16_000) <= 1
    inner = slice(1600, 14_400)
    ideal = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16_000)
    np.testing.assert_allclose(samples[inner], ideal[inner], atol=2e-3)


def test_frequencies_above_8_khz_are_filtered_not_folded(tmp_path) -> None:
    times = np.arange(48_000) / 48_000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 12_000 * times), 48_000)
    assert np.abs(load_audio(row_of(tmp_path / "a.wav")).samples[1600:-1600]).max() < 1e-3


def test_channels_are_averaged(tmp_path) -> None:
    left = np.full(16_000, 0.25)
    soundfile.write(tmp_path / "a.wav", np.stack([left, left * 2, left * 0], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(row_of(tmp_path / "a.wav")).samples, 0.25, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_segment_is_what_lies_at_its_offset(name, tmp_path) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=64_000)
    soundfile.write(tmp_path / name, noise, 16_000)
    whole = load_audio(row_of(tmp_path / name, duration=4.0)).samples
    part = load_audio(row_of(tmp_path / name, offset=1.25, duration=1.5)).samples
    np.testing.assert_allclose(part, whole[20_000:44_000], atol=1e-5)


def test_the_shipped_clips_decode() -> None:
    dataset = read_manifests(clips_manifest())
    clips = list(dataset.clips())
    assert len(clips) == len(dataset.rows) == 55
    for clip in clips:
        assert len(clip.samples) == pytest.approx(clip.row.duration * 16_000, abs=2)
        assert 0.01 < np.abs(clip.samples).max() < 1.5
        assert clip.row.text


def test_clips_are_decoded_one_at_a_time(monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr("shoal.data.dataset.load_audio", lambda row: decoded.append(row.id))
    clips = read_manifests(clips_manifest()).clips()
    next(clips)
    assert len(decoded) == 1


def test_an_audio_error_names_the_row(tmp_path) -> None:
    with pytest.raises(AudioError, match=r"^m\.jsonl:4: no such audio file .*gone\.wav"):
        load_audio(row_of(tmp_path / "gone.wav"))


def test_an_offset_behind_the_end_is_refused(tone) -> None:
    with pytest.raises(AudioError, match="behind the end"):
        load_audio(row_of(tone(), offset=2.0))
