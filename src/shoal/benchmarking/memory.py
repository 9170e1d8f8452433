"""Peak memory of one clip, each system in a fresh process.

A process that has loaded the unpruned model keeps traces of it, so every system gets a process of its own:
load, prune, give freed memory back, forget the peak so far, transcribe one clip, read the peak. On the CPU
that is resident memory, Python and its libraries included; on a GPU it is what torch has allocated there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import tasks
from shoal.errors import MeasureError

if TYPE_CHECKING:
    from shoal.data import Clip
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part
    from shoal.tasks import Task

TIMEOUT_SECONDS = 3600.0
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""glibc raises this limit while it runs, and then keeps some tensors that were let go (mallopt(3)): the same model
measured 0 to 36 MB apart. A fixed limit gives every larger block back at once."""


def peak_memory(
    loaded: LoadedModel,
    clip: Clip,
    task: Task,
    layers: Sequence[int],
    *,
    part: Part = "layer",
    new_tokens: int,
    trust_remote_code: bool = False,
    timeout: float = TIMEOUT_SECONDS,
) -> int:
    """Peak bytes while a fresh process transcribes `clip` without `layers`.

    Args:
        loaded: the model; it is loaded again by its `ref`, on the same device in the same dtype.
        clip: what is transcribed.
        task: what is asked.
        layers: 0-based indices to remove, ascending.
        part: what of them goes.
        new_tokens: tokens to decode.
        trust_remote_code: run code that the model brings along.
        timeout: seconds after which the process is ended.

    Raises:
        MeasureError: the process ended without a figure.
    """
    import torch

    spec = {
        "ref": loaded.ref,
        "device": str(loaded.device),
        "dtype": loaded.dtype_name,
        "trust_remote_code": trust_remote_code,
        "threads": torch.get_num_threads(),
        "layers": list(layers),
        "part": part,
        "task": [task.name, tasks.settings_to_keep(task)],
        "new_tokens": new_tokens,
    }
    with tempfile.TemporaryDirectory(prefix="shoal-memory-") as scratch:
        place = Path(scratch)
        np.save(place / "samples.npy", clip.samples)
        (place / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        return int(_run(place, timeout)["peak_bytes"])


def _run(place: Path, timeout: float) -> dict[str, Any]:
    try:
        done = _process(place, timeout)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"measuring memory took longer than {timeout:.0f} s and was ended") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasureError(f"the process that measures memory ended with {done.returncode} ({last})")
    found: dict[str, Any] = json.loads((place / "result.json").read_text(encoding="utf-8"))
    return found


def _process(place: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal.benchmarking.memory_child", str(place)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **ALLOCATION},
    )
