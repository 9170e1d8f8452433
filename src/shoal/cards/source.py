"""What a checkpoint was made of: the models before pruning, noted in its folder so that its card can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from shoal.models.lineage import SOURCE_FILE
from shoal.schema import Document, ModelInfo, Provenance


class SourceRecord(Document):
    """The models that a pruned checkpoint comes from."""

    kind: Literal["source"] = "source"
    model: ModelInfo
    """What the last plan was carried out on."""
    unpruned: ModelInfo
    """What it was before any pruning that Shoal knows of; the same after one plan."""


def note_source(draft: Path, info: ModelInfo, before: Path | None, provenance: Provenance) -> None:
    """Write down in the folder of a pruned checkpoint what it was pruned from.

    Args:
        draft: the checkpoint's folder.
        info: the model that was pruned.
        before: its folder, which may hold such a record of its own; None if there is no folder.
        provenance: of this pruning.

    Raises:
        FileFormatError: the record in `before` cannot be read.
    """
    earlier = None if before is None else source_record(before)
    unpruned = info if earlier is None else earlier.unpruned
    SourceRecord(provenance=provenance, model=info, unpruned=unpruned).save(draft / SOURCE_FILE)


def source_record(folder: Path) -> SourceRecord | None:
    """The record in `folder`, if there is one.

    Raises:
        FileFormatError: it cannot be read.
    """
    path = folder / SOURCE_FILE
    return SourceRecord.load(path) if path.is_file() else None
