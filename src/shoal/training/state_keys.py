"""What encoder states depend on, as digests: the encoder, what is heard, how it was altered."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from shoal.data import Row
from shoal.data.clip import AudioBytes
from shoal.errors import AudioError
from shoal.models.fingerprint import fingerprint
from shoal.models.speech_llm import SpeechLLM, SpeechLLMProcessor
from shoal.training.augment import Variant

FORMAT = 2
"""Raised when the same key would stand for other numbers or another layout."""

_WITHOUT_EFFECT = frozenset(
    {"transformers_version", "architectures", "dtype", "torch_dtype", "processor_class", "auto_map"}
)
"""Keys of a config that say nothing about the numbers."""


class Sources:
    """What is heard in a row, as a digest of the encoded audio, offset and duration; a file is read once."""

    def __init__(self) -> None:
        self._blobs: dict[int, tuple[AudioBytes, str]] = {}

    def of(self, row: Row) -> str | None:
        """The digest; None if the audio cannot be read."""
        try:
            audio = _file_digest(row.audio) if row.blob is None else self._blob_digest(row.blob)
        except (AudioError, OSError, ValueError):
            return None
        return digest(audio, round(float(row.offset), 6), round(float(row.duration), 6))

    def _blob_digest(self, blob: AudioBytes) -> str:
        # The blob is kept with its digest, so that its id is not given to another.
        if id(blob) not in self._blobs:
            self._blobs[id(blob)] = blob, hashlib.sha256(blob()).hexdigest()
        return self._blobs[id(blob)][1]


def _file_digest(path: Path) -> str:
    """SHA-256 of a regular file.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    status = path.stat()
    return _digest_while_unchanged(path, status.st_size, status.st_mtime_ns)


@cache
def _digest_while_unchanged(path: Path, *_: int) -> str:
    """The digest of a file as it is with this size and time of change (ns)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_key(model: SpeechLLM, processor: SpeechLLMProcessor, dtype: torch.dtype) -> str:
    """What states depend on besides the clip."""
    window = model.config.encoder_window
    return digest(
        FORMAT,
        fingerprint(model.encoder),
        _settings(model.config.encoder_config),
        _settings(processor.feature_extractor),
        str(model.encoder.dtype),
        str(dtype),
        *([] if window == "full" else [window]),  # states from before there was a choice keep their key
    )


def _settings(config: Any) -> dict[str, Any]:
    """A config as stable JSON can hold it, without what has no effect."""
    return {
        key: value for key, value in config.to_dict().items() if not key.startswith("_") and key not in _WITHOUT_EFFECT
    }


def digest(*parts: Any) -> str:
    """SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Arrays, which a feature extractor may hold, as lists."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def state_key(encoder: str, source: str, variant: Variant) -> str:
    """The key of one state."""
    return digest(encoder, source, float(variant.speed), variant.masks)


def seed(source: str, masks: int) -> int:
    """The same for a clip whatever the encoder, the speed and its batch."""
    return int(digest(source, masks)[:32], 16)
