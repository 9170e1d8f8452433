"""Short names of data sets, without any folder of this machine: they go into ids, outputs and tables."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1024)
def label_of(source: str) -> str:
    """The short name of a source of rows.

    Args:
        source: a manifest, a folder or `hf:NAME[:CONFIG][:SPLIT]`, as the user named it.

    Returns:
        `test` for `corpus/test.jsonl`, but `corpus` for `corpus/manifest.jsonl`, whose stem says nothing, and for the
        folder `corpus`; `NAME` without its owner for `hf:OWNER/NAME`; empty for an empty name.
    """
    if not source:
        return ""
    if source.startswith("hf:"):
        return source.removeprefix("hf:").split(":")[0].rstrip("/").rpartition("/")[2]
    path = Path(source)
    if path.is_dir():
        return path.resolve().name or "folder"
    return path.resolve().parent.name or "manifest" if path.stem == "manifest" else path.stem
