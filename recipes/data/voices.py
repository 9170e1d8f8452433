"""Synthetic voices: flite, espeak-ng and, where it is installed, Piper.

The flite voice `rms` is spoken in no training split of any script, so that it stays an unseen speaker.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import debian
import numpy as np
from common import RATE, Audio, ClipError, as_clip, digest, generator, read_audio

from shoal.errors import InputError

HELD_OUT = "rms"
_RELEASE = 3
"""Raise it when the same utterance is to sound different: its clips are then made anew."""
FLITE = ("awb", "slt", "kal16", "kal")
_ESPEAK_LANGS = ("en-us", "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
"""Not en-029: Whisper base hears one of its digits in ten."""
_ESPEAK_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5")
_FLITE_PACKAGES = ("flite", "libflite1", "libasound2")
_ESPEAK_PACKAGES = ("espeak-ng", "libespeak-ng1", "espeak-ng-data", "libpcaudio0", "libsonic0")

Engine = Literal["flite", "espeak", "piper"]


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks and how."""

    engine: Engine
    name: str
    """As the engine calls it; for Piper the path of its .onnx file."""
    tempo: int = 100
    """Percent of the usual speaking rate."""
    pitch: int = 100
    """Percent of the usual pitch; flite and Piper: by playing it faster, so the tempo changes too."""

    @property
    def speaker(self) -> str:
        """Engine and voice, for the manifest."""
        return f"{self.engine}-{Path(self.name).stem if self.engine == 'piper' else self.name}"


@dataclass(frozen=True, slots=True)
class Program:
    """An engine that can be run."""

    path: str
    environment: dict[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Utterance:
    """What to say, and everything needed to say it in another process."""

    text: str
    voice: Voice
    program: Program

    @property
    def name(self) -> str:
        """A file name that depends on what is heard alone."""
        voice = self.voice
        return digest(_RELEASE, voice.speaker, voice.tempo, voice.pitch, self.text)


def flite() -> Program:
    """Find flite on the PATH, else from Debian's package.

    Raises:
        InputError: neither is to be had.
    """
    return _program("flite", _FLITE_PACKAGES, "--version")


def espeak() -> Program:
    """Find espeak-ng on the PATH, else from Debian's package.

    Raises:
        InputError: neither is to be had.
    """
    return _program("espeak-ng", _ESPEAK_PACKAGES, "--version")


def piper(model: Path) -> Program:
    """The interpreter, once it is sure that it has the package `piper` and the voice is there.

    Raises:
        InputError: one of them is missing.
    """
    if importlib.util.find_spec("piper") is None:
        raise InputError("Piper is not installed", where="--piper", fix="pip install piper-tts")
    if not (model.is_file() and Path(f"{model}.json").is_file()):
        raise InputError("no such voice", where=f"--piper {model}", fix="give NAME.onnx with NAME.onnx.json beside it")
    return Program(sys.executable)


def training_voice(rng: random.Random) -> Voice:
    """A voice that may be trained on: flite, or three times in ten espeak-ng, which is harder to understand."""
    if rng.random() < 0.7:
        return flite_voice(rng, rng.choice(FLITE))
    name = f"{rng.choice(_ESPEAK_LANGS)}+{rng.choice(_ESPEAK_VARIANTS)}"
    return Voice("espeak", name, tempo=rng.randrange(75, 116, 5), pitch=rng.randrange(70, 131, 10))


def flite_voice(rng: random.Random, name: str) -> Voice:
    """A flite voice at some tempo and pitch."""
    return Voice("flite", name, tempo=rng.randrange(80, 121, 5), pitch=rng.choice((92, 96, 100, 104, 108)))


def piper_voice(rng: random.Random, model: Path) -> Voice:
    """A Piper voice at some tempo and pitch."""
    return Voice("piper", str(model), tempo=rng.randrange(85, 121, 5), pitch=rng.choice((94, 100, 106)))


def speak(utterance: Utterance) -> Any:
    """Say it: audio at 16 kHz.

    Raises:
        ClipError: the engine failed, or said nothing.
    """
    speed = 1.0 if utterance.voice.engine == "espeak" else utterance.voice.pitch / 100
    return _padded(as_clip(_ENGINES[utterance.voice.engine](utterance), speed=speed), utterance.name), RATE


def _padded(samples: Any, name: str) -> Any:
    """With silence before and after, as a recording has: 0.1 to 0.4 s, drawn by the clip's name."""
    rng = generator("silence", name)
    before, after = (round(rng.uniform(0.1, 0.4) * RATE) for _ in range(2))
    return np.pad(samples, (before, after))


def _say_flite(utterance: Utterance) -> Audio:
    voice = utterance.voice
    stretch = f"duration_stretch={100 / voice.tempo:.3f}"
    return _to_file(utterance, ["-voice", voice.name, "--setf", stretch, "-t", utterance.text, "-o"])


def _say_espeak(utterance: Utterance) -> Audio:
    voice = utterance.voice
    manner = ["-v", voice.name, "-s", str(round(1.75 * voice.tempo)), "-p", str(voice.pitch // 2)]
    return _to_file(utterance, [*manner, "-w", "FILE", "--", utterance.text])


def _to_file(utterance: Utterance, arguments: list[str]) -> Audio:
    """Run an engine that writes a file: at FILE, or at the end."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        filled = [file.name if part == "FILE" else part for part in arguments]
        command = [utterance.program.path, *filled, *([] if "FILE" in arguments else [file.name])]
        done = subprocess.run(
            command, env=utterance.program.environment, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise ClipError(f"{utterance.voice.engine}: {' '.join(done.stderr.split()) or done.returncode}")
        return read_audio(Path(file.name))


def _say_piper(utterance: Utterance) -> Audio:
    from piper import SynthesisConfig

    voice = utterance.voice
    # No noise: the same text in the same voice shall give the same audio.
    manner = SynthesisConfig(length_scale=100 / voice.tempo, noise_scale=0.0, noise_w_scale=0.0)
    spoken = list(_piper_model(voice.name).synthesize(utterance.text, syn_config=manner))
    if not spoken:
        raise ClipError("piper: nothing said")
    samples = np.concatenate([part.audio_float_array for part in spoken]).astype(np.float32)
    return samples, spoken[0].sample_rate


@cache
def _piper_model(path: str) -> Any:
    from piper import PiperVoice

    return PiperVoice.load(path)


def _program(name: str, packages: tuple[str, ...], probe: str) -> Program:
    """A program on the PATH, else of Debian's packages."""
    installed = shutil.which(name)
    if installed:
        return Program(installed)
    folders = [debian.unpacked(package) for package in packages]
    program = Program(str(folders[0] / "usr/bin" / name), debian.environment(folders))
    reason = _why_not(program, probe)
    if reason:
        raise InputError(f"cannot be run here ({reason.strip()})", where=name, fix=f"install {name} and put it on PATH")
    return program


def _why_not(program: Program, probe: str) -> str:
    """What the loader says against running it; nothing if it runs.

    Exit codes say little: the help of flite ends with 1.
    """
    try:
        done = subprocess.run([program.path, probe], env=program.environment, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr if done.returncode in (126, 127) or "error while loading" in done.stderr else ""


_ENGINES = {"flite": _say_flite, "espeak": _say_espeak, "piper": _say_piper}
