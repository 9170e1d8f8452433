"""Prune a checkpoint on disk without loading it, for models that do not fit in memory.

Headers and configs are read, everything is decided and proved (`shoal.pruning.rewrite`), and then the bytes of what
stays are copied, a few megabytes at a time. Interrupted, the same command goes on where it was
(`shoal.pruning.resumable`).

What becomes of the files:

- the weights that the stock class loads: one new file for each old one that has something left in it;
- PEFT adapters, in the root or in folders: their layers go and are renumbered likewise;
- `config.json`, `generation_config.json`: edited, everything else in them as it was;
- other files in the root, and folders: carried over. A folder with weights and a `config.json` of another class is a
  part of the model that has nothing to do with the decoder's depth (a vocoder, say) and is carried over whole; one
  with the same class is a copy of the model (a training checkpoint, say) and is left out;
- the same weights in other formats or layouts (`.bin`, `.gguf`, `consolidated.safetensors` …): left out;
- safetensors in a folder about which nothing says what they are: refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from shoal._version import __version__
from shoal.cards.facts import Folder, write_source_record
from shoal.cards.writing import CARD, first_card
from shoal.errors import VerificationError
from shoal.machine import check_disk
from shoal.models.lineage import PLAN_FILE
from shoal.models.meta_model import CONFIG, GENERATION_CONFIG
from shoal.progress import Progress, report_progress
from shoal.provenance import provenance
from shoal.pruning.config_files import to_text
from shoal.pruning.folder import carry_over, check_target, copy_files, files_in_folders
from shoal.pruning.resumable import ResumableFolder, resumable_folder
from shoal.pruning.rewrite import Rewrite, rewrite
from shoal.pruning.safetensors_file import NewFile, read_header, write_file
from shoal.pruning.shards import INDEX
from shoal.schema import Document, Plan
from shoal.schema.verification import VerificationReport

TENSORS_FILE = "shoal-tensors.json"
"""What every tensor was when it was copied."""
ROOM = 64 * 2**20
"""Bytes to leave free beside the weights, for the small files."""


class TensorDigests(Document):
    """SHA-256 of the bytes of every tensor, taken while they were copied from the unpruned checkpoint."""

    kind: Literal["tensors"] = "tensors"
    algorithm: Literal["sha256"] = "sha256"
    files: dict[str, dict[str, str]]
    """File, relative to the folder → tensor → digest in hexadecimal."""


def write_sharded(
    source: Path,
    plan: Plan,
    out: Path,
    *,
    ref: str,
    licence: str | None = None,
    prepare: Callable[[], None] | None = None,
    verify: Callable[[Path], VerificationReport] | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Path:
    """`shoal.prune_folder` for a folder, with a check of the caller's own; errors and other arguments are the same.

    Args:
        source: a checkpoint folder with safetensors.
        plan: what to remove; made for this model.
        out: the folder to make.
        ref: what the user calls the model.
        licence: its licence, if known.
        prepare: called when all is decided and nothing is copied yet: what it refuses costs no copying.
        verify: called with the finished folder before it gets its name; raises if it is not what it should be, and
            else says what was checked.
        force: replace `out` if there is something already.
        trust_remote_code: run the checkpoint's own code to build its class.
        progress: called while tensors are copied.
    """
    check_target(out, source, force)
    work = rewrite(source, plan, ref=ref, licence=licence, trust_remote_code=trust_remote_code)
    extra = files_in_folders(source)
    key = _key(source, plan, work)
    with resumable_folder(out, key, lambda: check_target(out, source, force)) as draft:
        _check_space(draft, work, source, extra)
        if prepare is not None:
            prepare()
        digests = _write_tensors(draft, work, progress)
        _write_configs(draft.folder, work)
        carry_over(source, draft.folder)
        copy_files(source, draft.folder, extra)
        plan.save(draft.folder / PLAN_FILE)
        TensorDigests(provenance=provenance(), files=digests).save(draft.folder / TENSORS_FILE)
        _check_written(draft.folder, work)
        report = None if verify is None else verify(draft.folder)
        if report is not None:
            work.tensors.add_to(report, draft.folder)
        write_source_record(draft.folder, work.info, source, provenance())
        text = first_card(Folder(draft.folder), work.info, report)
        (draft.folder / CARD).write_text(text, encoding="utf-8")
    return out


def _key(source: Path, plan: Plan, work: Rewrite) -> str:
    """Everything that decides what the finished files hold; the plan's layers, not when it was made."""
    import transformers

    paths = {source / CONFIG, *(file.source.path for file in work.tensor_files)}
    paths |= {source / adapter.config_name for adapter in work.adapters}
    stats = {path.relative_to(source).as_posix(): path.stat() for path in paths}
    files = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
    names = [[file.name, [piece.name for piece in file.pieces]] for file in work.tensor_files]
    versions = [__version__, transformers.__version__]
    parts = [str(source.resolve()), files, plan.depth, plan.layers, names, versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _check_space(draft: ResumableFolder, work: Rewrite, source: Path, extra: list[Path]) -> None:
    needed = sum(file.size for file in work.tensor_files if file.name not in draft.finished)
    needed += sum((source / path).stat().st_size for path in extra)
    check_disk(draft.folder, needed + ROOM)


def _write_tensors(draft: ResumableFolder, work: Rewrite, progress: Progress | None) -> dict[str, dict[str, str]]:
    total = sum(file.size for file in work.tensor_files)
    done = 0
    digests: dict[str, dict[str, str]] = {}
    for file in work.tensor_files:

        def write(target: Path, file: NewFile = file, before: int = done) -> dict[str, str]:
            copied = before

            def report(count: int) -> None:
                nonlocal copied
                copied += count
                report_progress(progress, file.name, copied, total)

            report(0)
            return write_file(file, target, report)

        digests[file.name] = draft.make(file.name, write)
        done += file.size
        report_progress(progress, file.name, done, total)
    return digests


def _write_configs(folder: Path, work: Rewrite) -> None:
    texts: dict[str, Any] = {CONFIG: work.config, GENERATION_CONFIG: work.generation, INDEX: work.index}
    texts |= {adapter.config_name: adapter.config for adapter in work.adapters}
    for name, value in texts.items():
        if value is not None:
            (folder / name).write_text(to_text(value), encoding="utf-8")


def _check_written(folder: Path, work: Rewrite) -> None:
    """Read the headers back from the disk: every tensor is there, as it should be, and no other."""
    for file in work.tensor_files:
        header = read_header(folder / file.name)
        written = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
        expected = {piece.name: (piece.source.dtype, piece.shape) for piece in file.pieces}
        if written != expected or header.metadata != file.source.metadata:
            raise VerificationError(f"{folder / file.name}: the file is not what was written; not kept")
