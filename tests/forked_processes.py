"""Processes of Shoal's without seconds of imports for each: forked from one that has imported what they need.

`python forked_processes.py verification|memory` imports what the script does, and no more. It reads a line of JSON for
each run and makes a process that runs the script as Shoal would have it run. `tests/pruning/test_verify.py` and
`tests/benchmarking/test_bench_memory.py` start processes as users do; with `SHOAL_FRESH=1` all tests do.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class Forks:
    """The process that the others are made of; it begins with the first of them."""

    OPTIONS: Sequence[str] = ()
    KIND = ""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def environment(self) -> dict[str, str]:
        """What is set for all of them."""
        return {}

    def run(self, script: str, arguments: Sequence[str], printed: Path, **job: Any) -> int:
        """The exit code of the script; what it printed is in `printed`."""
        server = self._server = self._server or subprocess.Popen(
            [sys.executable, *self.OPTIONS, __file__, self.KIND],
            env=os.environ | self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        job |= {"arguments": [script, *arguments], "printed": str(printed)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    def close(self) -> None:
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait()


class Verifications(Forks):
    """Checkpoints verified where nothing of Shoal was ever imported."""

    OPTIONS = ("-I",)
    KIND = "verification"

    def environment(self) -> dict[str, str]:
        return {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def verify(self, folder: Path, scratch: Path, places: Sequence[Path], timeout: float) -> None:
        """In place of `shoal.pruning.verify._run_child`."""
        from shoal.errors import VerificationError
        from shoal.pruning.verify import CHILD

        printed, modules = scratch / "printed.txt", str(scratch / "modules")
        if (code := self.run(str(CHILD), [str(place) for place in places], printed, modules=modules)) != 0:
            last = (printed.read_text().strip().splitlines() or ["no message"])[-1]
            raise VerificationError(f"{folder}: the checking process ended with {code} ({last})")


class Memories(Forks):
    """Peak memory of models that are loaded anew."""

    KIND = "memory"

    def environment(self) -> dict[str, str]:
        from shoal.benchmarking.memory import ALLOCATION

        return {**ALLOCATION, "PYTHONPATH": os.pathsep.join(sys.path)}

    def measure(self, folders: Sequence[Path], timeout: float, step: Callable[[], None]) -> None:
        """In place of `shoal.benchmarking.memory._measure`."""
        from shoal.benchmarking import memory, memory_child

        for folder in folders:
            printed = folder / "printed.txt"
            memory.check(self.run(memory_child.__file__, [str(folder)], printed), printed, timeout)
            step()


def import_for_verification() -> None:
    import torch  # noqa: F401
    import transformers.dynamic_module_utils
    import transformers.modeling_utils  # noqa: F401
    from safetensors.torch import load_file  # noqa: F401

    assert not [name for name in sys.modules if name.partition(".")[0] == "shoal"]


def import_for_memory() -> None:
    from shoal.benchmarking import memory_child  # noqa: F401
    from shoal.models import speech_llm  # noqa: F401


def serve(kind: str) -> None:
    """Answer with the exit code of each process, until there is nothing more to read."""
    import_for_verification() if kind == "verification" else import_for_memory()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            run(job)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict[str, Any]) -> NoReturn:
    """Run the script as itself, and end without taking the whole interpreter apart."""
    if "modules" in job:
        # Custom code is compiled into a cache by name: an own cache keeps an older checkpoint's code out.
        import transformers.dynamic_module_utils

        transformers.dynamic_module_utils.HF_MODULES_CACHE = job["modules"]
    printed = os.open(job["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(printed, stream.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    sys.argv = job["arguments"]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
