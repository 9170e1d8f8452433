"""Shoal's commands in processes of their own, which begin where everything is imported already.

`python forked_commands.py` says its number when it is ready, and reads a line of JSON for each command: its arguments,
and the file for what it prints. It answers with the number of the command's process, and with the exit code once that
has ended (minus the signal that killed it). What is healed is verified in the command's process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.pruning.verify import Expectation
    from shoal.schema.verification import VerificationReport

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join(str(HERE.parents[1] / part) for part in ("src", "tests", "tests/models")),
}


class FreshCommands:
    """A command at a time, each as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output.txt"

    def run(self, arguments: Sequence[str], *, within: float | None = None) -> int | None:
        """The exit code; None if it was killed (SIGKILL, with all that it started) after `within` seconds."""
        with self._output.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "shoal", *arguments],
                env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            return process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None

    def output(self) -> str:
        """What the last command printed."""
        return self._output.read_text()

    def close(self) -> None:
        pass


class ForkedCommands(FreshCommands):
    """The same, but for the imports, which are done once for all; verified in the command's own process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = subprocess.Popen(
            [sys.executable, __file__], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        self._answer()

    def run(self, arguments: Sequence[str], *, within: float | None = None) -> int | None:
        process = self._ask({"arguments": list(arguments), "output": str(self._output)})
        if within is not None and not select.select([self._server.stdout], [], [], within)[0]:
            # It may have ended by itself just before.
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
        code = self._answer()
        return None if code == -signal.SIGKILL else code

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _ask(self, job: dict[str, object]) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def serve() -> None:
    """Answer until there is nothing more to read."""
    imported()
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            sys.exit(command(job))
        os.setpgid(process, process)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def imported() -> None:
    """What healing a tiny SpeechLLM imports, and its verification in place."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401

    import tiny_speech  # noqa: F401
    from shoal.healing import checkpoints, run  # noqa: F401

    checkpoints.verify_checkpoint = checked_here


def checked_here(folder: Path, expected: Expectation) -> VerificationReport:
    """What `verify_checkpoint` says, found in this process."""
    from shoal.pruning.verify_child import checkpoint_checks
    from shoal.schema import Provenance
    from shoal.schema.verification import Check, VerificationReport

    checks = checkpoint_checks(folder, expected.facts, expected.tensors)
    return VerificationReport(provenance=Provenance(shoal="0"), checks=[Check(**check) for check in checks])


def command(job: dict[str, object]) -> int:
    from shoal.cli import main

    output = os.open(str(job["output"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    return main(job["arguments"])


if __name__ == "__main__":
    serve()
