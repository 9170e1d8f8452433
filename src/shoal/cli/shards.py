"""An evaluation in parts: the message of one part, and the processes for all of them on one machine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.settings import Settings, option_name

if TYPE_CHECKING:
    from shoal.evaluation.shards import ShardOutputs
    from shoal.models.settings import ModelSettings

SCORING = frozenset(
    {
        "cluster",
        "comet",
        "exports",
        "group_by",
        "level",
        "max_wer",
        "max_wer_increase",
        "out_of_domain",
        "replicates",
        "workers",
    }
)
"""Options that decide nothing of what is decoded; workers are not given them."""
PARENT = "SHOAL_WORKER_OF"
"""In the environment of a worker: the process that started it."""
_SET_PARENT_DEATH_SIGNAL = 1


class WorkerError(ShoalError):
    """A worker failed; its own message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def as_text(done: ShardOutputs) -> str:
    """What a person is told when a shard is done."""
    shard = done.shard
    return (
        f"shard {shard.number} of {shard.of}: {done.clips} clips, {done.decoded} outputs made in this run\n"
        f"{os.linesep.join(map(str, done.files))}\n"
        f"when all {shard.of} are there, the same command without --shard scores them"
    )


def as_json(done: ShardOutputs) -> dict[str, object]:
    """The same for a machine."""
    return {
        "shard": done.shard.number,
        "of": done.shard.of,
        "clips": done.clips,
        "decoded": done.decoded,
        "files": [str(path) for path in done.files],
    }


def run_workers(model: str, given: Sequence[Settings], loading: ModelSettings, count: int) -> None:
    """Decode in `count` processes, a shard each; returns when all are done.

    Args:
        model: what is evaluated.
        given: the options of `shoal evaluate`.
        loading: where the model is loaded; the processes share out the GPUs.
        count: how many.

    Raises:
        WorkerError: one failed; the others are stopped.
    """
    plain = [word for settings in given for word in arguments(settings)]
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
    ended = threading.Semaphore(0)
    workers = [
        _Worker(command, environment, f"{number}/{len(commands)}", ended.release)
        for number, command in enumerate(commands, 1)
    ]
    try:
        for _ in workers:
            ended.acquire()
            for worker in workers:
                worker.raise_failure()
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process, and the thread that reads what it says."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], name: str, ended: Callable[[], None]
    ) -> None:
        self._name, self._ended, self._last = name, ended, ""
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def raise_failure(self) -> None:
        """If it has failed.

        Raises:
            WorkerError: it has.
        """
        code = self._process.poll()
        if code is None or code == 0:
            return
        self._reader.join()
        if code < 0:
            raise WorkerError(f"worker {self._name} was killed by signal {-code}; run the command again", 1)
        raise WorkerError(self._last.removeprefix("shoal: ") or f"worker {self._name} failed", code)

    def stop(self) -> None:
        """End it if it is still running."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            if line.strip():
                self._last = line.strip()
                print(f"{self._name} {self._last}", file=sys.stderr, flush=True)
        self._process.wait()
        self._ended()


def end_with_parent() -> None:
    """In a worker: be told to stop when the process that started it is gone, however it went (Linux)."""
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if str(os.getppid()) != parent:
        os.kill(os.getpid(), signal.SIGTERM)
