"""A tiny random SpeechLLM as `shoal.load` would give it, and a few short clips on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from speech_llm_parts import tiny

from shoal.data import Dataset, read_manifests
from shoal.models import families
from shoal.models.loading import LoadedModel
from shoal.schema import Plan, Provenance

TEXTS = (
    "put the lid on the box",
    "she ran",
    "nine green bottles",
    "where is it now",
    "yes",
    "call me back soon",
)


def loaded(*, seed: int = 0, projector: str = "mlp", **text: Any) -> LoadedModel:
    """Four decoder layers; every layer matters, and responses end after a varying number of tokens."""
    model, processor = tiny("whisper", "llama", projector, **text)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return LoadedModel(
        ref=f"tiny-{seed}",
        path=Path(),
        model=model.requires_grad_(False),
        tokenizer=processor.tokenizer,
        processor=processor,
        family=families.find(model),
        kind="speech_llm",
    )


def saved(folder: Path) -> LoadedModel:
    """A tiny model, written to `folder` with its processor."""
    model = loaded()
    model.model.save_pretrained(folder)
    assert model.processor is not None
    model.processor.save_pretrained(folder)
    return model


def write_clips(folder: Path, count: int = 6, **fields: Any) -> Path:
    """A manifest of `count` noise clips of 0.3 to 0.8 s, by two speakers; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        seconds = 0.3 + 0.1 * (number % 6)
        name = f"clip{number}.wav"
        soundfile.write(folder / name, 0.1 * random.standard_normal(round(16_000 * seconds)), 16_000)
        row = {"audio_filepath": name, "duration": seconds, "text": TEXTS[number % len(TEXTS)], "lang": "en"}
        lines.append(json.dumps({**row, "speaker": f"s{number % 2}", "room": "a" if number < 3 else "b", **fields}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def dataset(folder: Path, count: int = 6) -> Dataset:
    """The clips of `write_clips`, read."""
    return read_manifests([str(write_clips(folder, count))])


def plan(*layers: int, strategy: str = "manual", depth: int = 4) -> Plan:
    """A plan over the tiny model."""
    return Plan(
        provenance=Provenance(shoal="test", created="2026-01-01T00:00:00+00:00"),
        model_ref="tiny",
        depth=depth,
        layers=list(layers),
        strategy=strategy,
        allow_last=True,
    )
