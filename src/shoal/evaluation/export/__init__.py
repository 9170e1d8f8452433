"""Stored outputs in the shapes that other tools read: one file a format, and this registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shoal.errors import UsageError
from shoal.evaluation.export.lm_eval import write as write_lm_eval
from shoal.evaluation.export.nemo import write as write_nemo
from shoal.evaluation.export.scored_outputs import ScoredOutputs
from shoal.evaluation.export.trn import write as write_trn
from shoal.settings import use_one_of

__all__ = ["FOLDER", "ScoredOutputs", "check_formats", "formats", "write_exports"]

FOLDER = "exports"
"""Within the folder of an evaluation; each format has a folder of its own there."""
_WRITERS: Mapping[str, Callable[[Path, ScoredOutputs], None]] = {
    "lm-eval": write_lm_eval,
    "nemo": write_nemo,
    "trn": write_trn,
}


def formats() -> list[str]:
    """All format names, sorted."""
    return sorted(_WRITERS)


def check_formats(names: Sequence[str], out: Path | None) -> None:
    """Refuse what cannot be written.

    Raises:
        UsageError: an unknown format, or no folder to write to.
    """
    for name in names:
        if name not in _WRITERS:
            raise UsageError(f"unknown format {name!r}", where="--export", fix=use_one_of(name, formats()))
    if names and out is None:
        raise UsageError("exports need a folder", where="--export", fix="give --out")


def write_exports(out: Path, stored: ScoredOutputs, names: Sequence[str]) -> list[Path]:
    """Write outputs in each format; returns the folders.

    Args:
        out: folder of the evaluation.
        stored: what to write.
        names: of formats.

    Raises:
        UsageError: an unknown format.
        FileFormatError: a file cannot be written.
    """
    check_formats(names, out)
    folders = [out / FOLDER / name for name in dict.fromkeys(names)]
    for folder in folders:
        _WRITERS[folder.name](folder, stored)
    return folders
