"""What happened to a checkpoint before: the plans and the records of healing and training that Shoal left in it."""

from __future__ import annotations

from pathlib import Path

from shoal.schema import Plan

ADAPTERS_FILE = "speech_llm.json"
"""Tells a folder of adapters of a SpeechLLM from a checkpoint, see `shoal.models.adapters`."""
PLAN_FILE = "shoal-plan.json"
"""The plan that made a pruned checkpoint; those before it are numbered `shoal-plan-1.json` …"""
HEAL_FILE = "shoal-heal.json"
"""How a healed checkpoint was healed; earlier healings are numbered `shoal-heal-1.json` …"""
TRAINING_FILE = "shoal-training.json"
"""How a SpeechLLM was trained, if Shoal did that."""
SOURCE_FILE = "shoal-source.json"
"""The models that a pruned checkpoint comes from, see `shoal.cards.facts`."""


def removed_layers(folder: Path) -> list[int]:
    """Layers missing from a checkpoint that Shoal wrote, in the numbering of the model before any pruning.

    Returns:
        Ascending indices; empty for a checkpoint without a plan.

    Raises:
        PlanError: a plan in the folder cannot be read.
    """
    plans = [Plan.load(path) for path in plan_files(folder)]
    if not plans:
        return []
    left = list(range(plans[0].depth))
    for plan in plans:
        left = [left[layer] for layer in plan.keep]
    return sorted(set(range(plans[0].depth)) - set(left))


def plan_files(folder: Path) -> list[Path]:
    """The plans that made a checkpoint, in the order in which they were carried out."""
    return _series(folder, PLAN_FILE)


def heal_files(folder: Path) -> list[Path]:
    """The records of healing that a checkpoint went through, first to last."""
    return _series(folder, HEAL_FILE)


def numbered(name: str, number: int) -> str:
    """The name of an earlier file, such as `shoal-plan-1.json`."""
    return f"{name.removesuffix('.json')}-{number}.json"


def _series(folder: Path, name: str) -> list[Path]:
    """The numbered files, in order, and then the latest."""
    earlier = sorted(folder.glob(f"{name.removesuffix('.json')}-*.json"), key=_number)
    latest = folder / name
    return [*earlier, latest] if latest.is_file() else earlier


def _number(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
