"""What a user gets: the public names, a quick command line, and a wheel with everything in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import shoal

ROOT = Path(__file__).resolve().parents[1]


def test_everything_promised_is_there_and_described() -> None:
    assert shoal.__all__ == sorted(shoal.__all__)
    for name in shoal.__all__:
        assert getattr(shoal, name).__doc__


def test_public_functions_are_not_shadowed_by_their_rooms() -> None:
    for name in (
        "audit",
        "bench",
        "compare",
        "evaluate",
        "load",
        "prune",
        "read_manifests",
        "render",
        "search",
        "select",
    ):
        assert callable(getattr(shoal, name))


def test_importing_shoal_and_its_command_line_loads_no_torch() -> None:
    code = "import sys, shoal, shoal.cli; print([m for m in ('torch', 'transformers', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [(["--version"], 0, "shoal 0"), (["--help"], 0, "audit"), (["prune"], 2, "MODEL")],
)
def test_the_console_script_answers(arguments: list[str], code: int, word: str) -> None:
    done = subprocess.run([sys.executable, "-m", "shoal", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_holds_what_runs_without_the_repository(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "shoal/py.typed",
        "shoal/demo/reference/adapters.safetensors",
        "shoal/demo/reference/README.md",
        "shoal/demo/clips/manifest.jsonl",
        "shoal/demo/clips/ATTRIBUTION.md",
    ):
        assert wanted in names
    assert sum(name.endswith(".opus") for name in names) >= 40
    assert any(name.startswith("shoal/report/templates/") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
