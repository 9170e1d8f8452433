"""Audio in: header, decoding (libsndfile), mono, 16 kHz (soxr)."""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.data.clip import SAMPLE_RATE, Clip, Row
from shoal.errors import AudioError

Samples = npt.NDArray[np.float32]

# 24 dB over full scale: no recording reaches that; integers stored as floats without scaling do.
_MAX_PEAK = 16.0


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """What a file says about itself."""

    frames: int
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Length of the whole file."""
        return self.frames / self.rate


def tolerance(seconds: float) -> float:
    """How far two statements about a length may lie apart (s): rounding, codec delay and padding."""
    return max(0.1, 0.02 * seconds)


def decoder_name() -> str:
    """The decoder and its version: decoders differ in samples."""
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__} (soundfile {soundfile.__version__})"


def resampler_name() -> str:
    """The resampler, its quality and its version."""
    import soxr

    return f"soxr {soxr.__version__} HQ (libsoxr {soxr.__libsoxr_version__})"


def read_header(row: Row) -> AudioHeader:
    """Read the length and shape of the whole file without decoding it.

    Raises:
        AudioError: not there, not a regular file, not audio, or without samples.
    """
    with _opened(row) as file:
        header = AudioHeader(file.frames, file.samplerate, file.channels)
    if header.frames <= 0 or header.rate <= 0:
        raise AudioError(f"audio file {row.audio_name} holds no samples", where=row.place)
    return header


def load_audio(row: Row) -> Clip:
    """Decode one row: seek `offset`, read `duration` seconds, average the channels, resample to 16 kHz.

    Returns:
        The clip; samples are float32 of shape `(samples,)`, finite.

    Raises:
        AudioError: cannot be decoded, ends early, or holds NaN, infinity or unscaled values.
    """
    with _opened(row) as file:
        rate, first = file.samplerate, round(row.offset * file.samplerate)
        frames = min(round(row.duration * rate), file.frames - first)
        if frames < 1:
            raise AudioError(f"offset {row.offset:g} s lies behind the end of {row.audio_name}", where=row.place)
        file.seek(first)
        channels: Samples = file.read(frames, dtype="float32", always_2d=True)
    _check_samples(channels, frames, rate, row)
    mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float32)
    return Clip(row, _resampled(mono, rate))


def _resampled(mono: Samples, rate: int) -> Samples:
    import soxr

    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mono)
    return np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def _check_samples(channels: Samples, frames: int, rate: int, row: Row) -> None:
    """Refuse what would poison a measurement without anyone noticing."""
    missing = (frames - len(channels)) / rate
    if not len(channels) or missing > tolerance(frames / rate):
        raise AudioError(
            f"audio file {row.audio_name} is cut off: {missing:.2f} s of {frames / rate:.2f} s are missing",
            where=row.place,
        )
    peak = float(np.abs(channels).max())
    if not math.isfinite(peak):
        raise AudioError(f"audio file {row.audio_name} holds NaN or infinite samples", where=row.place)
    if peak > _MAX_PEAK:
        raise AudioError(
            f"samples of {row.audio_name} reach {peak:.4g}, they are not scaled to [-1, 1]", where=row.place
        )


@contextmanager
def _opened(row: Row) -> Iterator[Any]:
    """The row's audio as an open `soundfile.SoundFile`; what libsndfile refuses becomes an `AudioError`."""
    import soundfile

    try:
        with _open(row) as file:
            yield file
    except soundfile.SoundFileError as error:
        # libsndfile's words, without the path that it repeats.
        reason = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
        raise AudioError(f"{row.audio_name} is not audio that can be read ({reason})", where=row.place) from None


def _open(row: Row) -> Any:
    import soundfile

    try:
        return soundfile.SoundFile(_openable(row))
    except TypeError:
        # soundfile asks for the rate of files that carry none (.raw)
        raise AudioError(f"{row.audio_name} has no audio header", where=row.place) from None
    except OSError as error:
        raise AudioError(f"{row.audio_name} cannot be read ({error.strerror})", where=row.place) from None


def _openable(row: Row) -> str | io.BytesIO:
    try:
        if row.blob is not None:
            return io.BytesIO(row.blob())
        mode = row.audio.stat().st_mode
    except AudioError as error:
        raise AudioError(error.what, where=row.place) from None
    except FileNotFoundError:
        raise AudioError(f"no such audio file {row.audio_name}", where=row.place) from None
    except ValueError:
        raise AudioError(f"audio path {row.audio_name} cannot be a path", where=row.place) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise AudioError(f"audio file {row.audio_name} is {kind}", where=row.place)
    if row.audio.stat().st_size == 0:
        raise AudioError(f"audio file {row.audio_name} is empty", where=row.place)
    return str(row.audio)
