"""Prove that a checkpoint folder is the model that was in memory: in a fresh process, with the stock class.

The parent records what the pruned model in memory is (`Expectation`): its depth and per-layer fields, a
hash of every tensor, and its logits on given inputs. `verify_child.py` then loads the folder without Shoal
and compares. Nothing in the folder is trusted but its own `auto_map`, which the user had to trust to load
the model at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import VerificationError
from shoal.models.families import find
from shoal.provenance import provenance
from shoal.schema.verification import REPORT_FILE, Check, VerificationReport

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family

CHILD = Path(__file__).with_name("verify_child.py")
TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class Expectation:
    """What a checkpoint has to be, taken from the model in memory."""

    facts: dict[str, Any]
    """Plain values: depth, per-layer fields, a hash for each tensor, device, threads."""
    tensors: dict[str, Tensor]
    """`case/name` → input tensor, and `case/expected_logits` → (B, T, V) float32."""


def expectation(
    model: PreTrainedModel, cases: Mapping[str, Mapping[str, Tensor]], *, family: Family | None = None
) -> Expectation:
    """Record what a checkpoint of `model`, as it is now, has to be.

    Args:
        model: the pruned model, in memory.
        cases: keyword arguments by name for `model(**inputs)` and `model.generate(**inputs)`: `input_ids`,
            most often a left-padded `attention_mask`, and audio inputs as the model takes them. Logits are
            compared on all of them, decoding with and without a cache on the last.
        family: the model's family, if known already.
    """
    import torch

    from shoal.pruning.probe import DECODING
    from shoal.pruning.verify_child import digests

    family = family or find(model)
    config = family.text_config(model)
    field = family.depth_field(config)
    facts = {
        "depth": len(family.layers(model)),
        "depth_field": field,
        "layers_path": family.layers_path(model),
        "config_path": family.config_path(model),
        "answering_path": family.answering_path(model),
        "generate_options": dict(family.generate_options),
        "fields": {field: getattr(config, field)} | family.per_layer_fields(config),
        "tensors": digests(model),
        "cache_case": list(cases)[-1] if family.cacheless else None,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }
    tensors = {f"{case}/{name}": value for case, inputs in cases.items() for name, value in inputs.items()}
    answering = family.answering(model)
    with torch.no_grad():
        for case, inputs in ((case, inputs) for case, inputs in cases.items() if case != DECODING):
            moved = {name: value.to(model.device) for name, value in inputs.items()}
            tensors[f"{case}/expected_logits"] = answering(**moved, use_cache=False).logits.float()
    # Copies, since cases may share tensors, which safetensors refuses.
    return Expectation(facts, {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})


def verify_checkpoint(folder: Path, expected: Expectation, *, timeout: float = TIMEOUT_SECONDS) -> VerificationReport:
    """Check `folder` in a fresh process.

    Args:
        folder: a checkpoint folder, complete.
        expected: what it has to be.
        timeout: seconds after which the process is ended.

    Returns:
        The report; it says itself whether all checks passed.

    Raises:
        VerificationError: the process could not say anything (it crashed, was killed or took too long).
    """
    return verify_checkpoints([(folder, expected)], timeout=timeout)[0]


def verify_checkpoints(
    folders: Sequence[tuple[Path, Expectation]], *, timeout: float = TIMEOUT_SECONDS
) -> list[VerificationReport]:
    """`verify_checkpoint` for several folders, one after the other in one fresh process.

    Raises:
        VerificationError: the process could not say anything (it crashed, was killed or took too long).
    """
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix="shoal-verify-") as scratch:
        job_folders = []
        for number, (folder, expected) in enumerate(folders):
            job_folders.append(Path(scratch, str(number)))
            job_folders[-1].mkdir()
            save_file(expected.tensors, job_folders[-1] / "expected.safetensors")
            job = {"folder": str(folder.resolve()), **expected.facts}
            (job_folders[-1] / "expected.json").write_text(json.dumps(job), encoding="utf-8")
        _run_child(folders[0][0], Path(scratch), job_folders, timeout)
        results = [json.loads((job_folder / "result.json").read_text(encoding="utf-8")) for job_folder in job_folders]
    return [
        VerificationReport(
            provenance=provenance(device=expected.facts["device"]), checks=[Check(**check) for check in checks]
        )
        for (_, expected), checks in zip(folders, results, strict=True)
    ]


def checked(report: VerificationReport, draft: Path, out: Path, *, done: str = "pruned") -> VerificationReport:
    """The report, saved in the `draft` of `out`, if every check passed; `done` says what was done to the model.

    Raises:
        VerificationError: one did not.
    """
    if not report.passed:
        failures = "; ".join(f"{check.name}: {check.detail}" for check in report.failures)
        raise VerificationError(f"{out}: the checkpoint is not the model that was {done} ({failures}); not written")
    report.save(draft / REPORT_FILE)
    return report


def _run_child(folder: Path, scratch: Path, job_folders: Sequence[Path], timeout: float) -> None:
    # Custom code is compiled into a cache by name: an own cache keeps an older checkpoint's code out.
    # Threads that wait must not spin: on a busy machine small products would take ten times as long.
    settings = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(scratch / "modules"), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD), *map(str, job_folders)],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise VerificationError(f"{folder}: the check took longer than {timeout:.0f} s and was ended") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VerificationError(f"{folder}: the checking process ended with {done.returncode} ({last})")
