"""Small audio files and manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

Tone = Callable[..., Path]
Manifest = Callable[..., Path]


def sine(seconds: float, rate: int, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """A tone at half scale, shape (frames, channels)."""
    times = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * times)
    return np.repeat(wave[:, None], channels, axis=1)


@pytest.fixture
def tone(tmp_path: Path) -> Tone:
    """Writes a tone under `tmp_path` and returns its path."""

    def write(name: str = "a.wav", seconds: float = 1.0, rate: int = 16_000, channels: int = 1, **how: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sine(seconds, rate, channels), rate, **how)
        return path

    return write


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Writes rows (objects, or lines as they are) to a manifest under `tmp_path`."""

    def write(*rows: dict[str, Any] | str, name: str = "corpus.jsonl") -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
