"""One lock between processes for everything."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shoal.errors import UsageError
from shoal.locks import locked

BUSY = UsageError("somebody is at it")


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock until its input ends."""
    code = (
        "import sys; from pathlib import Path; from shoal.errors import UsageError; from shoal.locks import locked\n"
        "with locked(Path(sys.argv[1]), busy=UsageError('')): print('locked', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_held_lock_is_refused_in_one_line(other, tmp_path):
    with pytest.raises(UsageError, match="somebody is at it"), locked(tmp_path / "a" / "lock", busy=BUSY):
        pass


def test_a_killed_process_leaves_nothing_locked(other, tmp_path):
    other.kill()
    other.wait()
    with locked(tmp_path / "a" / "lock", busy=BUSY):
        assert (tmp_path / "a" / "lock").exists()
    assert not (tmp_path / "a" / "lock").exists()


def test_one_that_waits_says_so_once_and_gets_the_lock(other, tmp_path):
    said = []

    def busy():
        said.append("waiting")
        threading.Timer(0.3, other.stdin.close).start()

    with locked(tmp_path / "a" / "lock", busy=busy):
        assert other.wait(10) == 0
    assert said == ["waiting"]


def test_nothing_but_this_module_knows_how_a_system_locks():
    """`fcntl` is not there on Windows."""
    source = Path(__file__).parents[1] / "src"
    texts = {path.name: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    assert [name for name, text in texts.items() if "fcntl" in text or "msvcrt" in text] == []
