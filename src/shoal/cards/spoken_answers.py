"""Models that answer in speech: nothing is assumed of what pruning does to that until it was tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shoal.cards.attached import FOLDER
from shoal.models.lineage import heal_files
from shoal.schema import ModelInfo, Scores, read_json

GENERATION = "tts"
"""The task that tests it."""


def speaks(info: ModelInfo) -> bool:
    """Whether the model, or a part that reads its decoder's states, answers in speech."""
    from shoal.models.families import families
    from shoal.models.families.audio_llm import AudioLLM

    family = next((item for item in families() if item.name == info.family), None)
    return isinstance(family, AudioLLM) and family.speaks(info.class_name)


def speech_untested(info: ModelInfo, documents: Iterable[object] = (), *, folder: Path | None = None) -> bool:
    """Whether a model answers in speech and nobody has tested that.

    Args:
        info: the model, pruned or to be pruned.
        documents: what was measured of the checkpoint.
        folder: of the checkpoint; what is attached there counts, too.
    """
    if not speaks(info):
        return False
    tested = any(isinstance(item, Scores) and _generates(item.task, item.task_settings) for item in documents)
    return not tested and not (folder is not None and _attached(folder))


def _attached(folder: Path) -> bool:
    """Whether scores of generated speech lie in the folder; whose they are is for the card to check."""
    files = [read_json(path) for path in sorted((folder / FOLDER).glob("scores-*.json"))]
    return any(isinstance(raw, dict) and _generates(raw.get("task"), raw.get("task_settings")) for raw in files)


def _generates(task: str | None, settings: Mapping[str, Any] | None) -> bool:
    """Whether a task is that of generation, or was made from it."""
    return GENERATION in (task, (settings or {}).get("kind"))


def changed(info: ModelInfo, folder: Path | None = None) -> bool:
    """Whether a checkpoint lacks layers or was healed, as far as it and its folder tell."""
    return bool(info.removed_layers) or (folder is not None and bool(heal_files(folder)))


def warning(name: str) -> str:
    """One line for the terminal."""
    return (
        f"warning: {name} answers in speech, and nothing was tested of what the changes to its decoder do to that; "
        f"listen to it, and attach a {GENERATION} result with shoal card --scores FILE --attach"
    )
