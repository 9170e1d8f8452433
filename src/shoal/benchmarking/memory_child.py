"""Load, prune, transcribe one clip, say how much memory that took.

Run by `shoal.benchmarking.memory` as `python -m shoal.benchmarking.memory_child FOLDER…`; each folder holds `spec.json`
and `samples.npy`, and gets `result.json`. Several are measured in forks of this process, which has imported what they
need and done nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from shoal import tasks
from shoal.data.clip import SAMPLE_RATE, Clip, Row
from shoal.decoder.prepare import prepare
from shoal.evaluation.generate import greedy
from shoal.models.loading import load
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.sublayers import let_go, without_part

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MAPS, PAGEMAP = Path("/proc/self/maps"), Path("/proc/self/pagemap")
RESET_PEAK = "5"
"""Written to `clear_refs`, sets the peak resident size to the present one (Linux, proc_pid_clear_refs(5))."""
PRESENT = 63
"""The bit of an entry of the page map that says whether the page is in memory (proc_pid_pagemap(5))."""


def main(folders: Sequence[Path]) -> None:
    """Measure what each of `folders` asks for, and print a line after each."""
    gc.freeze()
    pages = file_pages() if len(folders) > 1 else []
    for folder in folders:
        if len(folders) == 1:
            measure(folder)
        else:
            _measure_in_fork(folder, pages)
        print(folder.name, flush=True)


def _measure_in_fork(folder: Path, pages: Sequence[int]) -> None:
    if (process := os.fork()) == 0:
        try:
            touch(pages)
            measure(folder)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if (code := os.waitstatus_to_exitcode(status)) > 0:
        sys.exit(code)
    if code < 0:  # a signal has ended it, and ends this one
        signal.raise_signal(-code)


def measure(folder: Path) -> None:
    """Measure what `folder` asks for, in this process, which is ended if that takes too long."""
    spec: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    signal.setitimer(signal.ITIMER_REAL, spec["timeout"])
    torch.set_num_threads(spec["threads"])
    keys = ("device", "dtype", "trust_remote_code")
    loaded = load(spec["ref"], **{key: spec[key] for key in keys})
    samples = np.load(folder / "samples.npy")
    clip = Clip(Row("clip", Path("clip.wav"), len(samples) / SAMPLE_RATE), samples)
    with gone_without(loaded, spec["layers"], spec["part"]):
        peak = peak_of_one_clip(loaded, clip, tasks.restored(*spec["task"]), spec["new_tokens"])
    (folder / "result.json").write_text(json.dumps({"peak_bytes": peak}), encoding="utf-8")


def file_pages() -> list[int]:
    """Addresses of the pages of files, libraries above all, that this process has in memory.

    A fork begins without them: the kernel leaves them to be read again where they are needed.
    """
    size = resource.getpagesize()
    pages: list[int] = []
    with MAPS.open() as maps, PAGEMAP.open("rb") as pagemap:
        for span, access, _, _, inode, *_ in map(str.split, maps):
            start, end = (int(address, 16) // size for address in span.split("-"))
            if access.startswith("r") and inode != "0":
                pagemap.seek(8 * start)
                entries = np.frombuffer(pagemap.read(8 * (end - start)), dtype=np.uint64)
                pages += (size * (start + np.flatnonzero(entries >> PRESENT))).tolist()
    return pages


def touch(pages: Sequence[int]) -> None:
    """Bring pages into the memory of this process."""
    for page in pages:
        ctypes.string_at(page, 1)


@contextmanager
def gone_without(loaded: LoadedModel, layers: list[int], part: Part) -> Iterator[None]:
    """What is removed is let go of, so that it takes no memory; the model is not whole again afterwards."""
    if not layers:
        yield
    elif part == "layer":
        prune_in_place(loaded.model, layers, family=loaded.family)
        yield
    else:
        with without_part(loaded.model, layers, part, family=loaded.family):
            let_go(loaded.model)
            yield


def peak_of_one_clip(loaded: LoadedModel, clip: Clip, task: tasks.Task, new_tokens: int) -> int:
    """Peak bytes of this process, or of its GPU, while it embeds and decodes one clip."""
    leave_files(loaded.model)
    forget_peak(loaded.device)
    batch = prepare(loaded, [clip], task, input="speech", response=False, padding_side="left")
    greedy(loaded.lm, batch, eos_ids=(), max_new_tokens=new_tokens)
    return peak_bytes(loaded.device)


def leave_files(model: nn.Module) -> None:
    """Copy the weights out of the files they are mapped from.

    A mapped file stays as long as one of its tensors does, removed layers included, so a pruned model would seem
    as large as the whole one.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def forget_peak(device: torch.device) -> None:
    """Give freed memory back and start a new peak; where the system cannot, loading stays in the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    except (AttributeError, OSError):
        return


def peak_bytes(device: torch.device) -> int:
    """The peak since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
