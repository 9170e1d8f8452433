"""One virtual environment a peer, made once and kept in a cache folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

STAMP = "installed.json"


class InstallError(Exception):
    """pip could not install a peer."""


@dataclass(frozen=True)
class Environment:
    """What a peer runs in.

    Args:
        name: of the folder in the cache.
        packages: requirements beside torch, which is the version that Shoal runs with, so that the arithmetic
            underneath is the same.
    """

    name: str
    packages: tuple[str, ...]

    def python(self, cache: Path) -> Path:
        """The interpreter; makes the environment unless it is there with these packages.

        Raises:
            InstallError: pip failed.
        """
        folder = (cache / self.name).absolute()
        interpreter = folder / "bin" / "python"
        wanted = [torch.__version__, *self.packages]
        if _stamp(folder) == wanted:
            return interpreter
        print(f"installing {', '.join(self.packages)} in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        _install_torch(interpreter)
        _pip(interpreter, self.packages)
        (folder / STAMP).write_text(json.dumps(wanted))
        return interpreter


def _stamp(folder: Path) -> list[str] | None:
    try:
        return list(json.loads((folder / STAMP).read_text()))
    except (OSError, ValueError):
        return None


def _install_torch(interpreter: Path) -> None:
    """The very build that runs here if pip finds it (`+cpu`), else the default build of the same version."""
    try:
        _pip(interpreter, [f"torch=={torch.__version__}"])
    except InstallError:
        _pip(interpreter, [f"torch=={torch.__version__.partition('+')[0]}"])


def _pip(interpreter: Path, packages: Sequence[str]) -> None:
    command = [str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        problems = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
        raise InstallError(f"pip install {' '.join(packages)}: {problems[-1]}")
