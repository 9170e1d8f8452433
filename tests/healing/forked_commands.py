"""Shoal's commands in processes of their own, started as a user starts them or forked where everything is imported.

What a forked command heals is verified in the command's process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from forked_processes import Commands

if TYPE_CHECKING:
    from shoal.pruning.verify import Expectation
    from shoal.schema.verification import VerificationReport

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join(str(TESTS.parent / part) for part in ("src", "tests", "tests/models")),
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


class ForkedCommands(FreshCommands):
    """The same, but for the imports, which are done once for all; verified in the command's own process."""

    def __init__(self, folder: Path, processes: Commands) -> None:
        super().__init__(folder)
        self._processes = processes

    def run(self, arguments: Sequence[str], *, within: float | None = None) -> int | None:
        process = self._processes.start(partial(command, list(arguments)), self._output, ENVIRONMENT)
        code = self._processes.wait(within)
        if code is None:
            # It may have ended by itself just before.
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            code = self._processes.wait()
        return None if code == -signal.SIGKILL else code


def command(arguments: list[str]) -> int:
    """The exit code of a command of Shoal's."""
    from shoal.cli import main
    from shoal.healing import checkpoints

    checkpoints.verify_checkpoint = verify_here
    return main(arguments)


def verify_here(folder: Path, expected: Expectation) -> VerificationReport:
    """What `verify_checkpoint` says, found in this process."""
    from shoal.pruning.verify_child import checkpoint_checks
    from shoal.schema import Provenance
    from shoal.schema.verification import Check, VerificationReport

    checks = checkpoint_checks(folder, expected.facts, expected.tensors)
    return VerificationReport(provenance=Provenance(shoal="0"), checks=[Check(**check) for check in checks])
