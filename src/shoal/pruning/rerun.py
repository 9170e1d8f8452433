"""A pruned checkpoint that is there already: the one that is asked for, or another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal.cards.facts import SourceRecord, source_record
from shoal.models.json_file import read_json_object
from shoal.models.lineage import HEAL_FILE, PLAN_FILE
from shoal.models.meta_model import CONFIG
from shoal.schema import Plan
from shoal.schema.files import check_same


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
    before, now = _model(out, record, ref, source, fingerprint)
    before["removed layers"], now["removed layers"] = sorted(Plan.load(out / PLAN_FILE).layers), sorted(layers)
    if dtype is not None and (stored := stored_dtype(out)) is not None:
        before["dtype"], now["dtype"] = stored, dtype
    return check_same(out, "a checkpoint pruned", before, now)


def _model(
    out: Path, record: SourceRecord, ref: str, source: Path, fingerprint: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which model was pruned, and which is to be: by name, and by whether its weights have changed since."""
    if record.model.ref != ref and Path(record.model.ref).resolve() != source.resolve():
        return {"model": record.model.ref}, {"model": ref}
    if fingerprint and record.model.fingerprint:
        return {"fingerprint of weights": record.model.fingerprint}, {"fingerprint of weights": fingerprint}
    made = (out / PLAN_FILE).stat().st_mtime
    newer = any(path.stat().st_mtime > made for path in source.glob("*.safetensors"))
    return {"weights": "as they were"}, {"weights": "written since" if newer else "as they were"}


def stored_dtype(folder: Path) -> str | None:
    """The precision of a checkpoint's weights, as its config has it; None if that does not say."""
    if not (folder / CONFIG).is_file():
        return None
    config = read_json_object(folder / CONFIG)
    return config.get("dtype") or config.get("torch_dtype")
