"""An evaluation in parts: the message of one part, and the processes for all of them on one machine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.evaluation.settings import ScoringSettings
from shoal.settings import Settings, option_name
from shoal.validation.settings import ScoreRequirements

if TYPE_CHECKING:
    from shoal.evaluation.shards import ShardOutputs
    from shoal.models.settings import ModelSettings

SCORING = frozenset({"workers", *ScoringSettings.model_fields, *ScoreRequirements.model_fields} - {"seed"})
"""Options that decide nothing of what is decoded; workers are not given them."""
PARENT = "SHOAL_WORKER_OF"
"""In the environment of a worker: the process that started it."""
_SET_PARENT_DEATH_SIGNAL = 1


class WorkerError(ShoalError):
    """A worker failed; its own message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def summary(done: ShardOutputs) -> list[str]:
    """What a person is told when a shard is done."""
    shard = done.shard
    return [
        f"shard {shard.number} of {shard.of}: {done.clips} clips, {done.decoded} outputs made in this run",
        f"when all {shard.of} are there, the same command without --shard scores them",
    ]


def record(done: ShardOutputs) -> dict[str, object]:
    """The same for a machine."""
    return {
        "shard": done.shard.number,
        "of": done.shard.of,
        "clips": done.clips,
        "decoded": done.decoded,
        "files": [str(path) for path in done.files],
    }


def run_workers(model: str, options: Sequence[Settings], loading: ModelSettings, count: int) -> None:
    """Decode in `count` processes, a shard each; returns when all are done.

    Args:
        model: what is evaluated.
        options: those of `shoal evaluate`.
        loading: where the model is loaded; the processes share out the GPUs.
        count: how many.

    Raises:
        WorkerError: one failed; the others are stopped.
    """
    plain = [word for settings in options for word in arguments(settings)]
    commands = []
    for number in range(1, count + 1):
        device = device_of(loading.device, number)
        placed = loading if device == loading.device else loading.model_copy(update={"device": device})
        part = [*plain, *arguments(placed), "--shard", f"{number}/{count}", "--", model]
        commands.append([sys.executable, "-m", "shoal", "evaluate", *part])
    run_all(commands, environment(os.environ, count))


def arguments(settings: Settings) -> list[str]:
    """The command line of those settings that were given, without what is about scoring."""
    written: list[str] = []
    for name in sorted(settings.model_fields_set - SCORING):
        option, value = option_name(type(settings), [name]), getattr(settings, name)
        if isinstance(value, bool):
            written += [option] if value else []
        elif isinstance(value, Mapping):
            written += [word for key, text in value.items() for word in (option, f"{key}={text}")]
        else:
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            written += [word for item in values for word in (option, str(item))]
    return written


def device_of(device: str, number: int) -> str:
    """Workers share out the GPUs that `cuda` and `auto` leave open."""
    if device not in ("cuda", "auto"):
        return device
    import torch

    if device == "auto" and not torch.cuda.is_available():
        return device
    return f"cuda:{(number - 1) % max(1, torch.cuda.device_count())}"


def environment(ours: Mapping[str, str], count: int) -> dict[str, str]:
    """For a worker: its share of the processors, unless the user has said how many threads."""
    threads = max(1, len(os.sched_getaffinity(0)) // count) if hasattr(os, "sched_getaffinity") else 1
    return {"OMP_NUM_THREADS": str(threads), **ours, PARENT: str(os.getpid())}


def run_all(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
    """Run commands at the same time; their stderr is passed on line by line, each with its number.

    Raises:
        WorkerError: one failed; the others are stopped.
    """
    processes: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(len(commands)) as pool:
        try:
            processes += (_started(command, environment) for command in commands)
            watches = [
                pool.submit(_watch, process, f"{number}/{len(commands)}") for number, process in enumerate(processes, 1)
            ]
            for watch in as_completed(watches):
                watch.result()
        finally:
            # The pool waits for the threads, and these for their processes.
            for process in processes:
                if process.poll() is None:
                    process.terminate()


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _watch(process: subprocess.Popen[str], name: str) -> None:
    """Pass on what a worker says until it ends.

    Raises:
        WorkerError: it failed.
    """
    last = ""
    for line in process.stderr or ():
        if line.strip():
            last = line.strip()
            sys.stderr.write(f"{name} {last}\n")  # in one piece: workers speak at the same time
    code = process.wait()
    if code < 0:
        raise WorkerError(f"worker {name} was killed by signal {-code}; run the command again", 1)
    if code:
        raise WorkerError(last.removeprefix("shoal: ") or f"worker {name} failed", code)


def end_with_parent() -> None:
    """In a worker: be told to stop when the process that started it is gone, however it went (Linux)."""
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if str(os.getppid()) != parent:
        os.kill(os.getpid(), signal.SIGTERM)
