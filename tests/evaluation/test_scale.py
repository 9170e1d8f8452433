"""Large evaluations: shards in any order, killed processes, one process at a time for each file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from killed_at_random import HOW, lines, told

from forked_processes import run_script
from shoal.data import read_manifests
from shoal.data.sources import jsonl
from shoal.errors import FileFormatError, UsageError
from shoal.evaluation import evaluate, evaluate_shard, locks, rescore
from shoal.evaluation.locks import Locks
from shoal.evaluation.shards import Shard, shard_files
from tiny_speech import TEXTS, loaded, plan, write_clips

KILLS = int(os.environ.get("SHOAL_KILLS", "2"))
"""`SHOAL_KILLS=20` is what the lab book has."""
FEW = {**HOW, "replicates": 50}
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return many_rows(tmp_path_factory.mktemp("rows"), 14)


def many_rows(folder: Path, count: int) -> Path:
    """Rows that share a few short clips; some without an id."""
    rows = [json.loads(line) for line in write_clips(folder, 6).read_text().splitlines()]
    many = [rows[number % 6] | {"text": TEXTS[number * 5 % 6], "take": number} for number in range(count)]
    named = [row | {"id": f"clip-{number}"} if number % 3 else row for number, row in enumerate(many)]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    return path


@pytest.fixture(scope="module")
def undisturbed(model, manifest, tmp_path_factory):
    """The folder of one run over all clips, with a plan."""
    out = tmp_path_factory.mktemp("undisturbed")
    evaluate(model, read_manifests(manifest), plans=[plan(1)], out=out, **FEW)
    return out


@pytest.fixture
def run(model, manifest, tmp_path):
    """Decodes a shard into the folder of this test."""

    def decode(number, of, *, of_model=model, source=manifest):
        data = read_manifests(source)
        return evaluate_shard(of_model, data, shard=(number, of), plans=[plan(1)], out=tmp_path, **HOW)

    return decode


@pytest.fixture
def score(model, manifest, tmp_path):
    """Scores what is in the folder of this test; returns how many outputs had to be decoded for it."""

    def whole(source=manifest):
        before = len(lines(tmp_path))
        evaluate(model, read_manifests(source), plans=[plan(1)], out=tmp_path, **FEW)
        return len(lines(tmp_path)) - before

    return whole


@pytest.mark.parametrize("order", [[(1, 2), (2, 2)], [(3, 3), (1, 3), (2, 3)], [(2, 2), (1, 3), (4, 20), (3, 3)]])
def test_shards_in_any_order_and_number_give_the_same_scores(order, run, score, undisturbed, tmp_path):
    """With some clips in no shard that was run, they are decoded by the run that scores."""
    made = [run(*each) for each in order]
    found = lines(tmp_path)
    assert sum(each.decoded for each in made) == len(found)
    for path in made[0].files:
        assert path.is_file()
        assert path.with_suffix(".json").is_file()
    assert not (tmp_path / "scores.json").exists()
    assert score() == 28 - len(found)
    assert told(tmp_path) == told(undisturbed)
    assert sorted(lines(tmp_path)) == sorted(lines(undisturbed))
    names = {path.name for path in (tmp_path / "outputs").iterdir()}
    assert names == {"full.json", "full.jsonl", "without-1.json", "without-1.jsonl"}


def test_shards_cover_every_clip_once(run, manifest, tmp_path):
    made = [run(number, 4) for number in (1, 2, 3, 4)]
    assert [each.clips for each in made] == [4, 4, 3, 3]
    assert [each.decoded for each in made] == [8, 8, 6, 6]
    assert len(set(lines(tmp_path))) == 14
    assert len(lines(tmp_path)) == 28


def test_a_shard_goes_on_where_it_was_and_repeats_nothing_of_others(run, score, tmp_path):
    assert run(1, 2).decoded == 14
    assert run(1, 2).decoded == 0
    first = tmp_path / "outputs" / "full.shard-1-of-2.jsonl"
    whole = first.read_bytes()
    first.write_bytes(whole[:-30])
    assert run(2, 4).decoded == 8
    assert run(1, 1).decoded == 14 - 8 + 1
    assert run(1, 2).decoded == 0
    # The run with one shard has made the cut row, so that the file it was cut from stays one shorter.
    assert first.read_bytes() == whole[: whole[:-30].rfind(b"\n") + 1]
    assert score() == 0


def test_a_shard_without_a_clip_is_done_at_once(run):
    made = run(20, 20)
    assert (made.clips, made.decoded) == (0, 0)


def test_what_the_whole_run_has_is_not_decoded_again_by_a_shard(run, score):
    score()
    assert run(1, 2).decoded == 0


def test_shards_of_a_corrected_manifest_replace_what_was_said_to_the_old_one(
    run, score, model, tmp_path, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("corrected")
    source = many_rows(folder, 14)
    evaluate(model, read_manifests(source), plans=[plan(1)], out=tmp_path, **FEW)
    source.write_text(source.read_text().replace("she ran", "she ran away"))
    changed = source.read_text().count("she ran away")
    assert run(1, 2, source=source).decoded + run(2, 2, source=source).decoded == 2 * changed
    assert score(source) == 0
    again = evaluate(model, read_manifests(source), plans=[plan(1)], **FEW)
    stored = evaluate(model, read_manifests(source), plans=[plan(1)], out=tmp_path, **FEW)
    assert [system.measures["WER"].value for system in stored.systems] == [
        system.measures["WER"].value for system in again.systems
    ]
    assert rescore(tmp_path, replicates=50).systems == stored.systems


def test_shards_that_came_later_are_taken_up_by_rescoring(run, score, model, tmp_path, tmp_path_factory):
    source = many_rows(tmp_path_factory.mktemp("more"), 10)
    score(source)
    more = many_rows(source.parent, 14)
    assert run(1, 1, source=more).decoded == 8
    assert rescore(tmp_path, replicates=50).data.clips == 14
    assert shard_files(tmp_path / "outputs" / "full.jsonl") == []


def test_a_shard_of_another_model_is_refused(run, score):
    run(1, 2)
    with pytest.raises(FileFormatError, match=r"full\.shard-1-of-2\.jsonl: .*model\.fingerprint"):
        run(2, 2, of_model=loaded(seed=1))


def test_a_kill_while_shards_are_taken_up_loses_and_repeats_nothing(run, score, undisturbed, tmp_path):
    run(1, 2)
    run(2, 2)
    first, second = shard_files(tmp_path / "outputs" / "full.jsonl")
    whole = tmp_path / "outputs" / "full.jsonl"
    header = json.loads(first.with_suffix(".json").read_text())
    whole.with_suffix(".json").write_text(json.dumps(header))
    whole.write_bytes(first.read_bytes() + second.read_bytes()[:700])  # the second is half taken up,
    first.unlink()  # and the first is taken up, but its header is still there
    score()
    assert sorted(lines(tmp_path)) == sorted(lines(undisturbed))
    assert told(tmp_path) == told(undisturbed)
    assert not list((tmp_path / "outputs").glob("*shard*"))


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ((1, 2), (1, 2), "full.shard-1-of-2.jsonl: another process is decoding into these outputs"),
        ((1, 2), (2, 2), None),
        ((1, 2), None, "full.jsonl: another process is decoding into these outputs"),
        (None, (1, 2), "full.jsonl: another process is decoding into these outputs"),
        (None, None, "full.jsonl: another process is decoding into these outputs"),
    ],
)
def test_one_process_at_a_time_writes_a_file(theirs, ours, refused, run, score, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with another_process(tmp_path / "outputs" / "full.jsonl", theirs) as process:
        if refused is None:
            run(*ours)
        else:
            with pytest.raises(UsageError) as caught:
                run(*ours) if ours else score()
            assert refused in str(caught.value)
            assert "\n" not in str(caught.value)
        process.kill()
        process.wait()
        # However it ended, its lock is gone.
        run(*ours) if ours else score()
    score()
    assert list((tmp_path / "outputs").glob("*.lock")) == []


def another_process(path: Path, shard: tuple[int, int] | None) -> subprocess.Popen[str]:
    """A process that holds the locks of a run."""
    code = (
        "import sys, json; from pathlib import Path\n"
        "from shoal.evaluation.locks import Locks; from shoal.evaluation.shards import Shard\n"
        "path, shard = Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "with Locks() as locks:\n"
        "    locks.take_shard(Shard(*shard).file(path), path) if shard else locks.take(path)\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), json.dumps(shard)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_lock_is_taken_by_one_process_after_the_other(tmp_path):
    """Its file is removed by each; nobody ever holds a lock on a removed one beside another's."""
    path, log = tmp_path / "full.jsonl", tmp_path / "log"
    code = (
        "import sys, os; from pathlib import Path\n"
        "from shoal.evaluation import locks\n"
        "locks.PATIENCE = 60.0\n"
        "path, log = map(Path, sys.argv[1:])\n"
        "for _ in range(20):\n"
        "    with locks.Locks() as held:\n"
        "        held.take(path)\n"
        "        with log.open('a') as stream: stream.write('in\\n'); stream.flush(); stream.write('out\\n')\n"
    )
    command = [sys.executable, "-c", code, str(path), str(log)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert log.read_text() == "in\nout\n" * 40
    assert not path.with_suffix(".lock").exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening the file and locking it, the process before removes it."""
    fcntl = pytest.importorskip("fcntl")
    path, real, tries = tmp_path / "full.jsonl", fcntl.flock, []

    def late(descriptor, how):
        if not tries:
            path.with_suffix(".lock").unlink()
        tries.append(how)
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    with Locks() as held, Locks() as other:
        held.take(path)
        assert len(tries) == 2
        with pytest.raises(UsageError):
            other.take(path)


def test_locks_are_let_go_of_after_an_error(tmp_path):
    path = tmp_path / "outputs" / "full.jsonl"

    def fail():
        with Locks() as held:
            held.take(path)
            held.take(path)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert not path.with_suffix(".lock").exists()


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "-1/3", "a/b", "1/0", "1/2/3", "1/9999999999"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_a_run_that_is_killed_at_random_moments_repeats_and_loses_nothing(tmp_path, processes):
    many_rows(tmp_path, 60)
    script, arguments = str(Path(__file__).with_name("killed_at_random.py")), [str(tmp_path), str(KILLS)]
    if processes is not None:
        printed = tmp_path / "printed.txt"
        assert processes.run(partial(run_script, script, arguments), printed) == 0, printed.read_text()[-3000:]
        assert json.loads(printed.read_text().splitlines()[-1])["kills"] == KILLS
        return
    paths = os.pathsep.join(map(str, [TESTS, TESTS / "models", *filter(None, [os.environ.get("PYTHONPATH")])]))
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == KILLS


def test_a_row_is_parsed_when_it_is_read_and_when_it_is_used(model, manifest, tmp_path, monkeypatch):
    parsed = Counter()
    real = jsonl._parse
    monkeypatch.setattr(jsonl, "_parse", lambda text: parsed.update([text]) or real(text))
    data = read_manifests(manifest)
    assert set(parsed.values()) == {1}
    evaluate(model, data, plans=[plan(1)], out=tmp_path, **FEW)
    assert len(parsed) == 14
    assert set(parsed.values()) == {2}
    # What is there already is read to see that it answers the same question, and not used.
    parsed.clear()
    evaluate(model, read_manifests(manifest), plans=[plan(1)], out=tmp_path, **FEW)
    assert set(parsed.values()) == {2}
