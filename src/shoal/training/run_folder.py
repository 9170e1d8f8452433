"""The folder of an unfinished run: its settings, its checkpoints, and a log of its steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from shoal.errors import FileFormatError
from shoal.machine import writing
from shoal.schema.files import claim
from shoal.training.processes import Processes

MARKER = "shoal-complete"
"""The last file of a checkpoint; a folder without it was being written when the process ended."""
TENSORS = "trained.safetensors"
SETTINGS = "settings.json"
LOG = "log.jsonl"


@contextmanager
def work_folder(out: Path | None, name: str, processes: Processes) -> Iterator[Path]:
    """Where an unfinished run lies, so that the same command goes on with it; gone when all is written."""
    if out is None:
        with TemporaryDirectory(prefix=f"shoal-{name}-") as folder:
            yield Path(folder)
        return
    work = out.absolute().with_name(f".{out.name}.{name}")
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    except BaseException:
        with suppress(OSError):
            work.rmdir()  # where nothing has begun
        raise
    processes.wait()
    if processes.rank == 0:
        shutil.rmtree(work, ignore_errors=True)


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or make sure that it is of a run with these settings.

    Raises:
        UsageError: it is of another.
    """
    fix = "run that command again to finish it, or remove the folder to begin anew"
    claim(folder / SETTINGS, "an unfinished run", settings, fix=fix)


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint in `folder`; what is not whole is removed."""
    last = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_of):
        if (checkpoint / MARKER).is_file():
            last = checkpoint
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return last


def steps_of(checkpoint: Path) -> int:
    """The steps that were done when it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The steps of a run; a line that was being written when the process ended is left out."""
    path = folder / LOG
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


def load_trained(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Put saved parameters into a module.

    Args:
        module: the student, or its model.
        path: the file.
        prefix: what the names in the file have before those in the module.

    Raises:
        FileFormatError: they are not those that are trained.
    """
    saved = load_file(path)
    trained = {prefix + name: own for name, own in module.named_parameters() if own.requires_grad}
    if saved.keys() != trained.keys():
        raise FileFormatError(
            "the checkpoint is of another set of trained parameters",
            where=str(path),
            fix="remove the folder to begin anew",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(_sharded_like(saved[name], parameter))


def _sharded_like(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """`tensor`, sharded as the parameter is."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(
            tensor.to(parameter.device, parameter.dtype), parameter.device_mesh, parameter.placements
        )
    return tensor
