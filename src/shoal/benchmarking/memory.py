"""Peak memory of one clip, each system in a process of its own.

A process that has loaded the unpruned model keeps traces of it, so every system gets a process of its own:
load, prune, give freed memory back, forget the peak so far, transcribe one clip, read the peak. On the CPU
that is resident memory, Python and its libraries included; on a GPU it is what torch has allocated there.

Importing torch and transformers takes longer than the rest. On the CPU under Linux the processes are therefore forked
from one that has imported them and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import tasks
from shoal.errors import MeasureError

if TYPE_CHECKING:
    from shoal.data import Clip
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task

FORKS = sys.platform == "linux"
"""Elsewhere a fork may not be safe once the system's libraries are loaded (macOS), or there is none (Windows)."""
TIMEOUT_SECONDS = 3600.0
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""glibc raises this limit while it runs, and then keeps some tensors that were let go (mallopt(3)): the same model
measured 0 to 36 MB apart. A fixed limit gives every larger block back at once."""


def peak_memories(
    loaded: LoadedModel,
    clip: Clip,
    task: Task,
    plans: Sequence[Plan | None],
    *,
    new_tokens: int,
    trust_remote_code: bool = False,
    timeout: float = TIMEOUT_SECONDS,
    step: Callable[[], None] = lambda: None,
) -> list[int]:
    """Peak bytes while a process that does nothing else transcribes `clip`, for each of `plans`.

    Args:
        loaded: the model; it is loaded again by its `ref`, on the same device in the same dtype.
        clip: what is transcribed.
        task: what is asked.
        plans: what the model goes without; None for nothing.
        new_tokens: tokens to decode.
        trust_remote_code: run code that the model brings along.
        timeout: seconds after which a process is ended.
        step: called after each system.

    Raises:
        MeasureError: a process ended without a figure.
    """
    import torch

    spec = {
        "ref": loaded.ref,
        "device": str(loaded.device),
        "dtype": loaded.dtype_name,
        "trust_remote_code": trust_remote_code,
        "threads": torch.get_num_threads(),
        "task": [task.name, tasks.settings_to_keep(task)],
        "new_tokens": new_tokens,
        "timeout": timeout,
    }
    with tempfile.TemporaryDirectory(prefix="shoal-memory-") as scratch:
        folders = [Path(scratch, str(number)) for number in range(len(plans))]
        for folder, plan in zip(folders, plans, strict=True):
            folder.mkdir()
            np.save(folder / "samples.npy", clip.samples)
            removed = {"layers": plan.layers, "part": plan.part} if plan else {"layers": [], "part": "layer"}
            (folder / "spec.json").write_text(json.dumps(spec | removed), encoding="utf-8")
        # Some libraries look for a GPU while they are imported, and a fork of a process that has looked cannot use it.
        forks = FORKS and loaded.device.type == "cpu"
        for together in [folders] if forks else [[folder] for folder in folders]:
            _measure(together, timeout, step)
        return [_peak(folder) for folder in folders]


def _peak(folder: Path) -> int:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return int(result["peak_bytes"])


def _measure(folders: Sequence[Path], timeout: float, step: Callable[[], None]) -> None:
    """Run the process that leaves a result in each folder, and prints a line after each."""
    command = [sys.executable, "-m", "shoal.benchmarking.memory_child", *map(str, folders)]
    printed = folders[0] / "printed.txt"
    with (
        printed.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **ALLOCATION}
        ) as process,
    ):
        assert process.stdout is not None
        for _ in process.stdout:
            step()
    check(process.returncode, printed, timeout)


def check(code: int, printed: Path, timeout: float) -> None:
    """Make sure that a process, which ended with `code`, has measured.

    Raises:
        MeasureError: it has not, with the last line that it printed.
    """
    if code == -signal.SIGALRM:
        raise MeasureError(f"measuring memory took longer than {timeout:g} s and was ended")
    if code != 0:
        last = (printed.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise MeasureError(f"the process that measures memory ended with {code} ({last})")
