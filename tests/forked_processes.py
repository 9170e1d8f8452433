"""Processes with their imports done: forked from one that did them, instead of started with seconds of imports each.

There are two such processes, both made before any test has run. One is made before anything of Shoal is imported and
verifies checkpoints, as a user's verification does; the other has imported what the tests have, and runs commands.
`tests/pruning/test_verify.py` and `tests/benchmarking/test_bench_memory.py` start processes as users do; with
`SHOAL_FRESH=1` all tests do.
"""

from __future__ import annotations

import ctypes
import gc
import os
import runpy
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

WORKER = "SHOAL_TEST_WORKER"
"""Names the variable that holds the number of this process among those that share out the tests; 0 without it."""
M_MMAP_THRESHOLD = -3
"""mallopt(3)."""


class Forks:
    """A copy of this process as it is now, of which other processes are made."""

    def __init__(self, clients: int, prepare: Callable[[], None]) -> None:
        """The first process that is asked for waits for `prepare`; each client has one process at a time."""
        pipes = [Pipe() for _ in range(clients)]
        self._pid = os.fork()
        if self._pid == 0:
            serve([theirs for _, theirs in pipes], prepare)
        self._connections = [ours for ours, _ in pipes]

    @property
    def connection(self) -> Connection:
        return self._connections[int(os.environ.get(WORKER, "0"))]

    def start(
        self, function: Callable[[], int | None], printed: Path, environment: Mapping[str, str] = os.environ
    ) -> int:
        """The number of a process that calls `function` and leads a group of its own; it prints into `printed`."""
        self.connection.send((function, str(printed), dict(environment), str(Path.cwd())))
        return int(self.connection.recv())

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code of the process (minus the signal that ended it), or None if it still runs."""
        return int(self.connection.recv()) if self.connection.poll(timeout) else None

    def run(
        self, function: Callable[[], int | None], printed: Path, environment: Mapping[str, str] = os.environ
    ) -> int:
        """The exit code of a process that calls `function`."""
        self.start(function, printed, environment)
        code = self.wait()
        assert code is not None
        return code

    def close(self) -> None:
        with suppress(OSError):
            self._connections[0].send(None)
        os.waitpid(self._pid, 0)


def serve(connections: list[Connection], prepare: Callable[[], None]) -> NoReturn:
    """Make processes until there is nobody to ask for them, or somebody says that it is enough."""
    # Ctrl-C is for who asks. Processes that have ended are waited for, so that their time counts as this one's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: reap(os.WNOHANG))
    prepared = False
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            try:
                job = connection.recv()
            except EOFError:
                connections.remove(connection)
                continue
            if job is None:
                connections.clear()
                break
            if not prepared:
                prepare()
                gc.freeze()
                prepared = True
            if os.fork() == 0:
                handle(connection, *job)
    reap(0)
    os._exit(0)


def reap(options: int) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def handle(connection: Connection, *job: Any) -> NoReturn:
    """Make the process, say its number, and its exit code once it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process == 0:
        call(*job)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(process, process)
    connection.send(process)
    _, status = os.waitpid(process, 0)
    connection.send(os.waitstatus_to_exitcode(status))
    os._exit(0)


def call(function: Callable[[], int | None], printed: str, environment: dict[str, str], folder: str) -> NoReturn:
    """Call the function as if this process had begun with it, and end without taking the interpreter apart."""
    with suppress(PermissionError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    warnings.resetwarnings()
    redirect(printed)
    code = 1
    try:
        code = function() or 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def redirect(printed: str) -> None:
    """The standard streams are a file's; pytest had its own in their place."""
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115


def run_script(script: str, arguments: Sequence[str]) -> None:
    """Run the script as itself."""
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


class Verifications(Forks):
    """Checkpoints verified where nothing of Shoal was ever imported."""

    def __init__(self, clients: int) -> None:
        super().__init__(clients, import_for_verification)

    def verify(self, folder: Path, scratch: Path, places: Sequence[Path], timeout: float) -> None:
        """In place of `shoal.pruning.verify._run_child`."""
        from shoal.errors import VerificationError
        from shoal.pruning.verify import CHILD

        printed = scratch / "printed.txt"
        script = partial(run_apart, str(scratch / "modules"), str(CHILD), list(map(str, places)))
        if (code := self.run(script, printed)) != 0:
            last = (printed.read_text().strip().splitlines() or ["no message"])[-1]
            raise VerificationError(f"{folder}: the checking process ended with {code} ({last})")


def import_for_verification() -> None:
    import torch  # noqa: F401
    import transformers.dynamic_module_utils
    import transformers.modeling_utils  # noqa: F401
    from safetensors.torch import load_file  # noqa: F401


def run_apart(modules: str, script: str, arguments: Sequence[str]) -> None:
    """Run the script without Shoal and without the tests, offline, with another cache for a checkpoint's own code."""
    import huggingface_hub.constants
    import transformers.dynamic_module_utils

    assert not [name for name in sys.modules if name.partition(".")[0] == "shoal"]
    # Not all of the checkout: the environment may lie in it.
    here = Path(__file__).resolve().parents[1]
    ours = (here / "src", here / "tests")
    elsewhere = [folder for folder in sys.path if folder and Path(folder).resolve() != here]
    sys.path[:] = [folder for folder in elsewhere if not any(Path(folder).is_relative_to(room) for room in ours)]
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    # Custom code is compiled into a cache by name: an own cache keeps an older checkpoint's code out.
    transformers.dynamic_module_utils.HF_MODULES_CACHE = modules
    run_script(script, arguments)


class Commands(Forks):
    """Shoal's commands, and whatever else needs Shoal, in a process in which no test has run."""

    def __init__(self, clients: int) -> None:
        super().__init__(clients, import_for_commands)

    def measure_memory(self, folders: Sequence[Path], timeout: float, step: Callable[[], None]) -> None:
        """In place of `shoal.benchmarking.memory._measure`."""
        from shoal.benchmarking import memory

        for folder in folders:
            printed = folder / "printed.txt"
            memory.check(self.run(partial(measure_in, folder), printed), printed, timeout)
            step()


def import_for_commands() -> None:
    import accelerate  # noqa: F401
    import peft  # noqa: F401

    from shoal.benchmarking import memory_child  # noqa: F401
    from shoal.healing import checkpoints, run  # noqa: F401
    from shoal.models import speech_llm  # noqa: F401


def measure_in(folder: Path) -> None:
    """What `shoal.benchmarking.memory_child` does; the limit is `ALLOCATION`, which is read when a process starts."""
    from shoal.benchmarking import memory_child
    from shoal.benchmarking.memory import ALLOCATION

    (limit,) = ALLOCATION.values()
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, int(limit))
    memory_child.main([folder])
