"""Where rows come from: manifests, folders, Hugging Face data sets."""

from __future__ import annotations

import os
from pathlib import Path

from shoal.data.sources.base import RawRow, Source
from shoal.data.sources.folder import read_folder
from shoal.data.sources.huggingface import PREFIX, is_saved_dataset, read_reference, read_saved
from shoal.data.sources.jsonl import read_jsonl
from shoal.errors import ManifestError

__all__ = ["RawRow", "Source", "read_source"]


def read_source(ref: str | os.PathLike[str]) -> Source:
    """Read one source, whatever it is.

    A file is a NeMo manifest. A folder is a data set saved by `datasets`, else its `manifest.jsonl`, else a
    folder of audio + `.txt`. `hf:NAME[:CONFIG][:SPLIT]` is a data set by name.

    Raises:
        ManifestError: there is no such thing, or it cannot be read.
        UsageError: a data set was asked for and `datasets` is not installed.
    """
    if isinstance(ref, str) and ref.startswith(PREFIX):
        return read_reference(ref)
    path = Path(ref)
    try:
        # an empty name would be the current folder
        is_folder, is_file = bool(ref) and path.is_dir(), path.is_file() or path.is_fifo()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_file:
        return read_jsonl(path)
    if not is_folder:
        raise ManifestError(
            "no such manifest", where=str(ref) or "''", fix="give a JSONL file, a folder of audio or hf:NAME"
        )
    if is_saved_dataset(path):
        return read_saved(path)
    manifest = path / "manifest.jsonl"
    return read_jsonl(manifest) if manifest.is_file() else read_folder(path)
