"""Options about rows reach every option that names clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclopts import App

from shoal.cli import app, options
from shoal.data.settings import DataSettings
from tiny_speech import write_clips


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = Path(write_clips(tmp_path, 6))
    rows = [json.loads(line) | {"split": "ab"[n % 2]} for n, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("limit", "where", "clips", "splits"),
    [(None, {}, 2, {"a"}), (1, {}, 1, {"a"}), (None, {"split": "b"}, 2, {"b"}), (3, {"split": "b"}, 3, {"b"})],
)
def test_limit_and_where_hold_for_other_clips_unless_these_have_their_own(manifest, limit, where, clips, splits):
    rows = DataSettings(limit=2, where={"split": "a"})
    data = options.read_other("--test", [manifest], rows, limit, where, "asr", 0)
    assert data is not None
    assert len(data.rows) == clips
    assert {row.fields["split"] for row in data.rows} == splits
    assert options.read_other("--test", [], rows, limit, where, "asr", 0) is None


def names(command: App) -> set[str]:
    return {name for argument in command.assemble_argument_collection() for name in argument.names}


@pytest.mark.parametrize(
    ("command", "prefix"), [("heal", "validation"), ("search", "confirm"), ("heal-grid", "test"), ("evaluate", "")]
)
def test_every_option_that_names_clips_has_a_limit_and_a_where(command: str, prefix: str) -> None:
    dash = f"--{prefix}-" if prefix else "--"
    assert {f"{dash}limit", f"{dash}where"} <= names(app[command])


def test_targets_are_named_alike() -> None:
    assert "--target" in names(app["heal"])
    assert {"--target", "--targets"} <= names(app["heal-grid"])
