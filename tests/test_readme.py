"""The README from top to bottom, on a tiny model and a few clips, as a new user would type it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import shoal
from shoal.cli import main
from test_documents import FENCE, commands
from tiny_speech import saved, write_clips

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "".join(f"```\n{block}```\n" for block in FENCE.findall(README))


@pytest.fixture
def beginner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a model called MODEL, test clips and training clips."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "MODEL")
    for name, speakers in (("manifest", "ab"), ("train", "cd")):
        clips = write_clips(tmp_path / name, 6)
        rows = [json.loads(line) for line in clips.read_text().splitlines()]
        for number, row in enumerate(rows):
            row |= {"audio_filepath": str(clips.parent / row["audio_filepath"]), "split": "test"}
            row |= {"speaker": speakers[number % 2]}
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


IN_CODE = r"<\w+ object|\bNone\b|\bnan\b|Error\b|Warning\b|[A-Za-z]+\("
"""What only the source explains."""
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not show a user."""


def test_the_readme_works_from_top_to_bottom(
    beginner: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    lines = list(commands(BLOCKS))
    assert [line[0] for line in lines] == ["audit", "select", "evaluate", "prune", "heal", "heal", "report"]
    for line in lines:
        assert main(line) == 0, line
        printed = capsys.readouterr()
        assert (beginner / line[line.index("--out") + 1]).exists()
        assert not re.search(IN_CODE, printed.out), printed.out
        assert not re.search(IN_CODE + r"|Traceback|0/\?|it/s\]", printed.err), printed.err
        shown = [str(warning.message) for warning in recwarn if not issubclass(warning.category, HIDDEN)]
        assert not shown, line
        # A result ends with what was written, and what was written is there.
        assert Path(printed.out.splitlines()[-1]).exists(), line
    (script,) = (block for block in FENCE.findall(README) if block.startswith("import shoal"))
    exec(script.replace("pkg:reference", "MODEL"), {})
    assert shoal.load("run/shallower").info().depth == 3
    # As it says: what was done is not done again.
    capsys.readouterr()
    for line in lines:
        assert main(line) == 0, line
    again = capsys.readouterr()
    assert again.err.count("nothing left to do") >= 3, again.err
