"""A pruned checkpoint that is there already: the one that is asked for, or another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shoal.cards.facts import SourceRecord, source_record
from shoal.errors import UsageError
from shoal.models.json_file import read_json_object
from shoal.models.lineage import HEAL_FILE, PLAN_FILE
from shoal.models.meta_model import CONFIG
from shoal.schema import Plan


def finished(
    out: Path, layers: Sequence[int], *, ref: str, source: Path, dtype: str | None = None, fingerprint: str = ""
) -> bool:
    """Whether `out` is already what is asked for; False also where nothing is there that pruning made.

    Args:
        out: the folder to make.
        layers: what is removed, 0-based.
        ref: what the user calls the model.
        source: the model's folder.
        dtype: that the weights are to have, such as `bfloat16`; None: whatever they have.
        fingerprint: of the model's weights, if known.

    Raises:
        UsageError: it was pruned otherwise; the line says how.
        FileFormatError: a record in it cannot be read.
    """
    if not (out / PLAN_FILE).is_file() or (out / HEAL_FILE).is_file() or (record := source_record(out)) is None:
        return False
    removed, asked = (", ".join(map(str, sorted(numbers))) for numbers in (Plan.load(out / PLAN_FILE).layers, layers))
    differences = _differences(out, record, ref, source, fingerprint)
    if removed != asked:
        differences.append(f"it lacks layers {removed or 'none'}, not {asked or 'none'}")
    if dtype is not None and (stored := stored_dtype(out)) not in (None, dtype):
        differences.append(f"it is stored in {stored}, not {dtype}")
    if differences:
        raise UsageError(
            f"another checkpoint is there: {'; '.join(differences)}",
            where=str(out),
            fix="choose another folder, or replace it with --force",
        )
    return True


def _differences(out: Path, record: SourceRecord, ref: str, source: Path, fingerprint: str) -> list[str]:
    """Whether another model was pruned, or this one as it was before its weights changed."""
    same_name = record.model.ref == ref or Path(record.model.ref).resolve() == source.resolve()
    if not same_name:
        return [f"it was made from {record.model.ref}, not {ref}"]
    if fingerprint and record.model.fingerprint:
        return [] if fingerprint == record.model.fingerprint else [f"it was made from other weights of {ref}"]
    made = (out / PLAN_FILE).stat().st_mtime
    newer = any(path.stat().st_mtime > made for path in source.glob("*.safetensors"))
    return [f"the weights of {ref} were written after it"] if newer else []


def stored_dtype(folder: Path) -> str | None:
    """The precision of a checkpoint's weights, as its config has it; None if that does not say."""
    if not (folder / CONFIG).is_file():
        return None
    config = read_json_object(folder / CONFIG)
    return config.get("dtype") or config.get("torch_dtype")
