"""Audits of plausible shape with random numbers, in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metrics import column_count
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise, summarise_importance
from shoal.measurement.sums import Sums, SumsFile, save_sums
from shoal.schema import SCOPES, Audit, InputKind, ModelInfo, Part, Provenance
from shoal.statistics import make_resampler
from shoal.terms import Candidate

DEPTH = 6


def blocks(depth: int, sizes: Sequence[int]) -> tuple[Candidate, ...]:
    """Every block of these sizes that keeps the last layer."""
    return tuple(tuple(range(start, start + n)) for n in sizes for start in range(depth - n))


def random_sums(seed: int, *, depth: int = DEPTH, utterances: int = 8, noise: float = 0.3, prefix: str = "u") -> Sums:
    """Positions 1 … 9 an utterance and scope, none of audio; two utterances a speaker."""
    profile = np.random.default_rng(0).random(column_count(depth))
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10, (utterances, len(SCOPES)))
    counts[:, SCOPES.index("audio")] = 0
    values = counts[:, :, None] * (profile + noise * rng.random((utterances, len(SCOPES), len(profile))))
    names = [f"{prefix}{place}" for place in range(utterances)]
    return Sums(depth, names, [f"s{place // 2}" for place in range(utterances)], values, counts.astype(np.int64))


def random_importance(
    seed: int,
    utterances: Sequence[str],
    *,
    depth: int = DEPTH,
    sizes: Sequence[int] = (1, 2),
    metric: str = "ablation",
    quantity: str = "loss",
    part: Part = "layer",
    candidates: tuple[Candidate, ...] | None = None,
) -> ImportanceSums:
    """Every block of these sizes that keeps the last layer, measured on every utterance."""
    rng = np.random.default_rng(seed)
    candidates = candidates or blocks(depth, sizes)
    counts = rng.integers(3, 12, len(utterances))
    level = rng.random(len(candidates)) + 0.2
    values = counts[:, None] * (level + rng.normal(0, 0.3, (len(utterances), len(candidates))))
    return ImportanceSums(
        metric, quantity, "response", part, candidates, tuple(utterances), values, counts.astype(np.int64)
    )


def audit_of(
    sums: dict[InputKind, Sums],
    importance: dict[InputKind, list[ImportanceSums]] | None = None,
    *,
    task: str = "asr",
    fingerprint: str = "f",
    language: str = "en",
    manifest: str = "clips.jsonl",
    name: str = "org/model",
    model_kind: str = "speech_llm",
    hidden_size: int = 8,
) -> Audit:
    """The document of these sums."""
    depth = next(iter(sums.values())).depth
    inputs = {kind: summarise(item, kind, AuditSettings(replicates=20)) for kind, item in sums.items()}
    for kind, items in (importance or {}).items():
        inputs[kind].importance = [
            summarise_importance(
                item, depth, make_resampler([None] * len(item.utterances), replicates=20, seed=0), 0.95
            )
            for item in items
        ]
    model = ModelInfo(
        ref=name,
        kind=model_kind,
        class_name="M",
        family="f",
        depth=depth,
        hidden_size=hidden_size,
        fingerprint=fingerprint,
    )
    data = {"manifests": [manifest], "clips": 8, "seconds": 1.0, "languages": [language]}
    return Audit(
        provenance=Provenance(shoal="0"),
        model=model,
        data=data,
        task=task,
        inputs=inputs,
        replicates=20,
        sums_file="audit.npz",
    )


def save_audit(
    folder: Path,
    sums: dict[InputKind, Sums],
    importance: dict[InputKind, list[ImportanceSums]] | None = None,
    **about: Any,
) -> Path:
    """`audit.json` and `audit.npz` in `folder`; returns the first."""
    save_sums(folder / "audit.npz", SumsFile(sums, importance=importance or {}))
    return audit_of(sums, importance, **about).save(folder / "audit.json")


def slow_ranks(values: Sequence[float]) -> list[float]:
    """Equal values share their mean rank."""
    return [sum(other < v for other in values) + (sum(other == v for other in values) - 1) / 2 for v in values]


def slow_spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, by its definition."""
    a, b = slow_ranks(x), slow_ranks(y)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return both / (sum((p - mean_a) ** 2 for p in a) * sum((q - mean_b) ** 2 for q in b)) ** 0.5
