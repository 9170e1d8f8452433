"""`shoal evaluate --shard` and `--workers`: what is decoded where, what is printed, and how failures are passed on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoal.cli import main, shards
from shoal.schema import Scores
from tiny_speech import plan, saved, write_clips


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A saved tiny model, a manifest and a plan."""
    folder = tmp_path_factory.mktemp("good")
    saved(folder / "model")
    write_clips(folder / "clips")
    plan(1, 2).save(folder / "plan.json")
    return folder


@pytest.fixture
def given(good, tmp_path):
    data = ["--data", str(good / "clips" / "manifest.jsonl"), "--plan", str(good / "plan.json")]
    few = ["--out", str(tmp_path / "out"), "--max-new-tokens", "8", "--where", "lang=en", "--limit", "5"]
    return ["evaluate", str(good / "model"), *data, *few]


def test_shards_are_decoded_and_then_scored(given, tmp_path, capsys):
    assert main([*given, "--shard", "2/2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "shard 2 of 2: 2 clips, 4 outputs made in this run"
    assert "without --shard" in told[1]
    assert told[2:] == [
        str(tmp_path / "out" / "outputs" / f"{name}.shard-2-of-2.jsonl") for name in ("full", "without-1-to-2")
    ]
    assert main([*given, "--shard", "1/2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shard"], found["of"], found["clips"], found["decoded"]) == (1, 2, 3, 6)
    assert not (tmp_path / "out" / "scores.json").exists()
    assert main([*given, "--replicates", "50"]) == 0
    assert Scores.load(tmp_path / "out" / "scores.json").data.clips == 5
    assert not list((tmp_path / "out" / "outputs").glob("*shard*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shard", "3/2"], "--shard: 3/2 is no part; give 1/N to N/N, such as 2/8"),
        (["--shard", "two"], "--shard: 'two' is not K/N"),
        (["--shard", "1/2", "--rescore"], "--shard: a part of the clips is decoded and not scored"),
        (["--shard", "1/2", "--workers", "2"], "--shard: a part of the clips is decoded and not scored"),
        (["--shard", "1/2", "--max-wer", "5%"], "--shard: a part of the clips is decoded and not scored"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_what_makes_no_sense_is_one_line(given, more, said, capsys):
    assert main([*given, *more]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_workers_are_given_what_decides_the_outputs(given, tmp_path, monkeypatch, capsys):
    """The commands are run one after the other in this process; nothing is left to decode for the run that scores."""
    seen = []

    def run_all(commands, environment):
        seen.extend(commands)
        assert environment[shards.PARENT] == str(os.getpid())
        for command in commands:
            assert command[:3] == [sys.executable, "-m", "shoal"]
            assert main(command[3:]) == 0
        lines = [path.read_bytes() for path in (tmp_path / "out" / "outputs").glob("*.jsonl")]
        assert sum(each.count(b"\n") for each in lines) == 10

    monkeypatch.setattr(shards, "run_all", run_all)
    scoring = ["--replicates", "50", "--group-by", "room", "--json", "--seed", "3", "--batch-size", "2"]
    assert main([*given, "--workers", "3", *scoring]) == 0
    scores = Scores.load(tmp_path / "out" / "scores.json")
    assert (scores.data.clips, scores.replicates, list(scores.systems[0].groups)) == (5, 50, ["room"])
    model, rest = given[1], given[2:]
    expected = {*rest, "--seed", "3", "--batch-size", "2", "--shard", "--", model, "evaluate"}
    for number, command in enumerate(seen, 1):
        assert set(command[3:]) == expected | {f"{number}/3"}


def test_processes_run_together_and_say_who_says_what(capfd):
    wait = "import sys, time; print('ready', file=sys.stderr, flush=True); time.sleep(0.2)"
    shards.run_all([[sys.executable, "-c", wait]] * 2, os.environ)
    assert sorted(capfd.readouterr().err.splitlines()) == ["1/2 ready", "2/2 ready"]


@pytest.mark.parametrize(
    ("fails", "said", "code"),
    [
        ("print('log', file=sys.stderr); sys.exit('shoal: no such thing')", "no such thing", 1),
        ("sys.exit(1)", "worker 2/3 failed", 1),
        ("import os; os.kill(os.getpid(), 9)", "worker 2/3 was killed by signal 9; run the command again", 1),
    ],
)  # fmt: skip
def test_the_first_failure_is_passed_on_and_the_others_are_stopped(fails, said, code):
    wait, begun = [sys.executable, "-c", "import time; time.sleep(60)"], time.monotonic()
    with pytest.raises(shards.WorkerError) as caught:
        shards.run_all([wait, [sys.executable, "-c", f"import sys; {fails}"], wait], os.environ)
    assert str(caught.value) == said
    assert caught.value.exit_code == code
    assert time.monotonic() - begun < 50


def test_workers_share_the_processors_unless_the_user_has_said_otherwise(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert shards.environment({}, 3)["OMP_NUM_THREADS"] == "2"
    assert shards.environment({}, 20)["OMP_NUM_THREADS"] == "1"
    assert shards.environment({"OMP_NUM_THREADS": "5", "A": "b"}, 3) == {
        "OMP_NUM_THREADS": "5",
        "A": "b",
        shards.PARENT: str(os.getpid()),
    }


def test_workers_share_out_the_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [shards.device_of("cuda", number) for number in (1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [shards.device_of("auto", number) for number in (1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert shards.device_of("cuda:1", 1) == "cuda:1"
    assert shards.device_of("cpu", 2) == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert shards.device_of("auto", 2) == "auto"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_worker_ends_when_the_process_that_started_it_is_killed(tmp_path: Path):
    worker = (
        "import os, time; from shoal.cli.shards import end_with_parent; end_with_parent();"
        f"open({str(tmp_path / 'worker')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    starter = (
        "import os, subprocess, sys, time; from shoal.cli.shards import PARENT;"
        f"subprocess.Popen([sys.executable, '-c', {worker!r}], env=os.environ | {{PARENT: str(os.getpid())}});"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", starter])
    written = tmp_path / "worker"
    wait_until(lambda: written.exists() and written.read_text())
    pid = int(written.read_text())
    assert running(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
