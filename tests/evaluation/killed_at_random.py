"""An evaluation in processes that are killed at random moments, until it has been killed often enough.

    python killed_at_random.py FOLDER KILLS

`FOLDER` holds `manifest.jsonl`. Every process decodes the whole or a shard, drawn at random, into the same folder;
what is imported and the model are there before it is forked, and so the kills fall into the work. Ends with a line of
JSON: how often it was killed, how often it came to its end, and how many outputs each killed process left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import tiny_speech
from shoal.data import read_manifests
from shoal.evaluation import evaluate, evaluate_shard
from shoal.schema import Scores

HOW = {"batch_size": 4, "max_new_tokens": 6}
TIMES = {"encode_seconds", "prefill_seconds", "decode_seconds"}
MOST_SHARDS = 3


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    model, manifest = tiny_speech.loaded(), folder / "manifest.jsonl"

    def whole(out: Path) -> None:
        evaluate(model, read_manifests(manifest), out=out, replicates=50, **HOW)

    def part(out: Path, number: int, of: int) -> None:
        evaluate_shard(model, read_manifests(manifest), shard=(number, of), out=out, **HOW)

    whole(folder / "undisturbed")
    shutil.rmtree(folder / "undisturbed")
    begun = time.monotonic()
    assert ended(lambda: whole(folder / "undisturbed"), limit=60)
    longest = time.monotonic() - begun
    expected = told(folder / "undisturbed")
    random, out = np.random.default_rng(0), folder / "killed"
    killed: list[int] = []
    finished = 0
    while len(killed) < kills:
        of = int(random.integers(0, MOST_SHARDS + 1))
        number = int(random.integers(1, of + 1)) if of else 0
        attempt = (lambda n=number, o=of: part(out, n, o)) if of else (lambda: whole(out))
        if not ended(attempt, limit=random.uniform(0, longest)):
            killed.append(len(lines(out)))
        elif not of:
            # It came to its end: begin anew.
            check(out, expected)
            finished += 1
            shutil.rmtree(out)
    assert ended(lambda: whole(out), limit=60)
    check(out, expected)
    print(json.dumps({"kills": len(killed), "finished": finished, "left": killed}))


def ended(work: Callable[[], None], *, limit: float) -> bool:
    """Whether a process came to its end before it was killed; it must not fail."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, "a process failed"
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == 0


def check(out: Path, expected: dict[str, object]) -> None:
    """No clip twice, none lost, no file left over, the scores as they were undisturbed."""
    found = lines(out)
    assert sorted(found) == sorted(set(found)), "a clip is there twice"
    assert sorted(found) == sorted(lines(out.with_name("undisturbed"))), "a clip is lost"
    assert sorted(path.name for path in (out / "outputs").iterdir()) == ["full.json", "full.jsonl"]
    assert told(out) == expected


def lines(out: Path) -> list[str]:
    """The clips of all whole lines in all files."""
    files = sorted((out / "outputs").glob("*.jsonl"))
    whole = [line for path in files for line in path.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line)["id"] for line in whole]


def told(out: Path) -> dict[str, object]:
    """What the scores say, besides when and how fast."""
    scores = Scores.load(out / "scores.json").model_dump(exclude={"provenance"})
    for system in scores["systems"]:
        for name in TIMES:
            del system[name]
    return scores


if __name__ == "__main__":
    main()
