"""Names of data sets, without the folders of this machine: in ids and outputs, in tables, on cards."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.schema import DataInfo, Scores

DATA, DOMAIN = "data", "domain"
"""Fields whose groups are data sets, and what is pooled of those in and out of domain."""


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


def data_name(data: DataInfo) -> str:
    """What the clips are called: the manifests' names, in one line.

    Of an absolute path only folder and name: the rest says where this machine keeps it, which is nobody's business.
    """
    names = ["/".join(path.parts[-2:]) if (path := PurePath(name)).is_absolute() else name for name in data.manifests]
    return " ".join(", ".join(names).split()) or "clips without a name"


def short_name(data: DataInfo) -> str:
    """The manifests' file names without their endings: `test-clean+test-other`."""
    return "+".join(Path(manifest).stem for manifest in data.manifests)


def set_columns(scores: Scores) -> list[tuple[str, str]]:
    """(field, value) of the groups that are data sets, those out of domain last, then what is pooled of several."""
    groups = scores.systems[0].groups if scores.systems else {}
    names = sorted(groups.get(DATA, {}), key=lambda name: (name in scores.out_of_domain, name))
    outside = sum(name in scores.out_of_domain for name in names)
    pooled = {"in": len(names) - outside, "out": outside}
    return [*((DATA, name) for name in names), *((DOMAIN, side) for side in groups.get(DOMAIN, {}) if pooled[side] > 1)]


def set_name(scores: Scores, field: str, value: str) -> str:
    """A group of `set_columns` as a heading names it."""
    if field == DOMAIN:
        return {"in": "all in domain", "out": "all out of domain"}[value]
    return f"{value}, out of domain" if value in scores.out_of_domain else value
