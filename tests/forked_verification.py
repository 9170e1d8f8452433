"""Verification of checkpoints without a second of imports for each: forked from a process that has not seen Shoal.

`python -I forked_verification.py` imports what `verify_child.py` does, and no more. It reads a line of JSON for each
verification and makes a process that runs the script as `shoal.pruning.verify` would have it run.
`tests/pruning/test_verify.py` has its checkpoints verified as users have; with `SHOAL_FRESH=1` all tests do.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Verifier:
    """The process that the others are made of; it begins with the first verification."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, folder: Path, scratch: Path, places: Sequence[Path], timeout: float) -> None:
        """In place of `shoal.pruning.verify._run_child`."""
        from shoal.errors import VerificationError
        from shoal.pruning.verify import CHILD

        printed = scratch / "printed.txt"
        job = {
            "arguments": [str(CHILD), *map(str, places)],
            "modules": str(scratch / "modules"),
            "printed": str(printed),
        }
        if (code := self._asked(job)) != 0:
            last = (printed.read_text().strip().splitlines() or ["no message"])[-1]
            raise VerificationError(f"{folder}: the checking process ended with {code} ({last})")

    def _asked(self, job: dict[str, Any]) -> int:
        server = self._server = self._server or subprocess.Popen(
            [sys.executable, "-I", __file__],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    def close(self) -> None:
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait()


def serve() -> None:
    """Answer with the exit code of each process, until there is nothing more to read."""
    import torch  # noqa: F401
    import transformers.dynamic_module_utils
    import transformers.modeling_utils
    from safetensors.torch import load_file  # noqa: F401

    assert not [name for name in sys.modules if name.partition(".")[0] == "shoal"]
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            # Custom code is compiled into a cache by name: an own cache keeps an older checkpoint's code out.
            transformers.dynamic_module_utils.HF_MODULES_CACHE = job["modules"]
            check(job)
            return
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def check(job: dict[str, Any]) -> None:
    """Run the script as itself."""
    printed = os.open(job["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(printed, stream.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    sys.argv = job["arguments"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
