"""Prune a checkpoint without loading it, and prove the result as far as the machine allows.

`shoal.pruning.sharded` copies the bytes. What it writes is then held against the model that it should be: the unpruned
checkpoint, loaded and pruned in memory, gives the logits that a fresh process has to find in the new folder. Where the
unpruned model does not fit in memory, that part is left out, and the report and the card say so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.errors import UsageError
from shoal.machine import free_memory
from shoal.progress import Progress
from shoal.provenance import provenance
from shoal.pruning.settings import Way
from shoal.pruning.verify import checked, expectation, verify_checkpoint
from shoal.schema import Plan
from shoal.schema.verification import Check, VerificationReport

if TYPE_CHECKING:
    from shoal.pruning.verify import Expectation

ROOM = 1.3
"""Times the size of the weights that must be free to load them: the model, and its states on the probe."""


def prune_folder(
    ref: str,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    verify: bool = True,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a checkpoint without the plan's layers, shard by shard, without loading the weights.

    Args:
        ref: a folder, a Hub id or `pkg:NAME`, with safetensors weights of the whole model.
        plan: what to remove; made for this model.
        out: the folder to make.
        verify: compare with the unpruned model pruned in memory, in a fresh process, if it fits in memory.
        force: replace `out` if there is something already.
        trust_remote_code: run code that the model brings along.
        progress: called with (what, done, total).

    Returns:
        `out`; if it is this very checkpoint already, nothing is done.

    Raises:
        PlanError: the plan does not fit the model.
        ModelError: the model cannot be pruned so that its stock class loads it again.
        InputError: `out` is taken, or cannot be written, or the disk is full.
        VerificationError: the checkpoint is not what was pruned; nothing is left under the final name.
    """
    from shoal.models import weights
    from shoal.pruning.in_memory import check_whole
    from shoal.pruning.rerun import finished, stored_dtype
    from shoal.pruning.sharded import write_sharded

    check_whole(plan)
    source = weights.resolve(ref)
    dtype = stored_dtype(source.path)
    if not force and finished(Path(out), plan.layers, ref=ref, source=source.path, dtype=dtype):
        return Path(out)
    expected: list[Expectation] = []

    def prepare() -> None:
        if fits_in_memory(source.path):
            expected.append(_expected(ref, plan, trust_remote_code))

    def check(draft: Path) -> VerificationReport:
        report = verify_checkpoint(draft, expected[0]) if expected else _structure_only()
        return checked(report, draft, Path(out))

    return write_sharded(
        source.path,
        plan,
        Path(out),
        ref=ref,
        licence=source.licence,
        prepare=prepare if verify else None,
        verify=check if verify else None,
        force=force,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )


def choose_way(path: Path, way: Way) -> Literal["memory", "disk"]:
    """`auto`: on disk where the weights would take more than the memory that is free.

    Raises:
        UsageError: a folder that can only be pruned in memory.
    """
    whole = any(path.glob("*.safetensors")) and (path / "config.json").is_file()
    if way == "disk" and not whole:
        raise UsageError(
            f"{path} does not hold a whole checkpoint (config.json and safetensors)",
            where="--how disk",
            fix="prune it in memory, with --how memory",
        )
    if way == "auto":
        return "disk" if whole and not fits_in_memory(path) else "memory"
    return way


def fits_in_memory(path: Path) -> bool:
    """Whether the weights in `path` can be loaded into what memory is free now."""
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return size * ROOM < free_memory()


def _expected(ref: str, plan: Plan, trust_remote_code: bool) -> Expectation:
    """What the unpruned model is, in memory, without the plan's layers; the model is gone again afterwards."""
    from shoal.models.loading import load_model
    from shoal.pruning.in_memory import pruned
    from shoal.pruning.on_disk import check_plan
    from shoal.pruning.probe import probe

    # An adapter beside the weights is pruned beside them.
    loaded = load_model(ref, device="cpu", dtype="stored", trust_remote_code=trust_remote_code, merge=False)
    check_plan(plan, loaded.info())
    cases = probe(loaded)
    with pruned(loaded.model, plan, family=loaded.family) as model:
        return expectation(model, cases, family=loaded.family)


def _structure_only() -> VerificationReport:
    """`write_sharded` has read every header again: names, shapes and dtypes are those of the pruned class."""
    detail = (
        "every tensor that the stock class wants is there with its shape, and no other; logits were not compared, "
        "since the unpruned model does not fit in memory here"
    )
    return VerificationReport(provenance=provenance(), checks=[Check(name="structure", passed=True, detail=detail)])
