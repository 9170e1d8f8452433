"""`shoal search`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re

import pytest

from shoal.cli import main
from shoal.evaluation import evaluate
from shoal.evaluation.system_outputs import read_outputs
from shoal.schema import Plan, Search
from tiny_speech import dataset, loaded, saved


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A saved tiny model, and clips that say what it hears, and a little more."""
    folder = tmp_path_factory.mktemp("good")
    model = saved(folder / "model")
    data = dataset(folder / "clips", 8)
    evaluate(model, data, out=folder / "said", replicates=10, max_new_tokens=8)
    said = read_outputs(folder / "said" / "outputs" / "full.jsonl")
    lines = [
        json.dumps({**row.fields, "audio_filepath": str(row.audio), "text": said[row.id].pred_text + " more"})
        for row in data.rows
    ]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(good, tmp_path):
    def call(*more):
        given = [str(good / "model"), "--data", str(good / "manifest.jsonl"), "--out", str(tmp_path / "out")]
        return main(["search", *given, "--max-new-tokens", "8", "--replicates", "99", *more])

    return call


def test_a_table_for_a_person(run, tmp_path, capsys):
    assert run("--max-wer-increase", "9999%") == 0
    printed = capsys.readouterr().out
    for word in ("greedy-1", "greedy-3", "WER %", "p seen", "on unseen clips", "4 clips to choose on"):
        assert word in printed
    assert "(not confirmed: it holds on 4 unseen clips of one speaker (p = 0." in printed
    assert "4 clips of one speaker in the confirmation split are fewer than the 20 that are needed" in printed
    assert "caution: 4 clips are few. The intervals cover the choice of clips" in printed
    assert "next: shoal prune" in printed
    assert str(tmp_path / "out" / "plan.json") in printed
    assert len(Plan.load(tmp_path / "out" / "plan.json").layers) == 3


def test_json_for_a_machine_is_all_there_is_on_stdout(run, tmp_path, capsys):
    assert run("--max-increase", "9999%", "--json") == 0
    found = Search.parse(json.loads(capsys.readouterr().out), where="stdout")
    assert found == Search.load(tmp_path / "out" / "search.json")


def test_no_plan_ends_with_4_and_takes_an_older_plan_away_if_it_may(run, tmp_path, capsys):
    assert run("--max-increase", "9999%") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json")}
    assert len(before) == 3
    capsys.readouterr()
    assert run("--max-increase", "0%") == 2
    assert capsys.readouterr().err.endswith(
        "it holds a search with budget.max_increase 99.99, not 0.0; choose another with --out, or replace it with "
        "--force\n"
    )
    assert {path: path.read_bytes() for path in before} == before
    assert run("--max-increase", "0%", "--json", "--force") == 4
    captured = capsys.readouterr()
    assert Search.parse(json.loads(captured.out), where="stdout").chosen is None
    assert "shoal: No plan holds: removing layer" in captured.err
    assert not (tmp_path / "out" / "plan.json").exists()


def test_the_plan_can_be_evaluated(run, good, tmp_path):
    assert run("--max-layers", "3") == 0
    plan, manifest = str(tmp_path / "out" / "plan.json"), str(good / "manifest.jsonl")
    few = ["--limit", "2", "--max-new-tokens", "4", "--replicates", "20", "--out", str(tmp_path / "scores")]
    assert main(["evaluate", str(good / "model"), "--data", manifest, "--plan", plan, *few]) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-increase", "-5%"], "--max-increase: '-5%' is not a share"),
        (["--max-wer-increase", "some"], "write 25% or 0.25"),
        (["--max-wer-increase", "5"], "--max-increase: '5' is not a share; write 5% or 0.05"),
        (["--confidence", "95"], "--confidence: 95 is no confidence"),
        (["--max-layers", "0"], "--max-layers: '0' does not fit; give 1 or more"),
        (["--max-mb", "nan"], "--max-mb: 'nan' does not fit; give a finite number"),
        (["--limit", "1"], "1 clip cannot be split"),
        (["--cluster", "room"], "use speaker or utterance"),
        (["--task", "lm"], "--input: the task lm cannot take the input 'speech'; use text"),
        (["--metric", "angular"], "greedy of layers cannot rank by 'angular'"),
    ],
)
def test_bad_flags_are_one_line(run, tmp_path, capsys, more, said):
    assert run(*more) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("shoal:")]
    assert said in line
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_text_llm_is_refused(good, tmp_path, capsys):
    loaded().model.decoder.save_pretrained(tmp_path / "text")
    loaded().tokenizer.save_pretrained(tmp_path / "text")
    given = ["--data", str(good / "manifest.jsonl"), "--out", str(tmp_path / "out")]
    assert main(["search", str(tmp_path / "text"), *given]) == 2
    assert "takes no speech and cannot hear" in capsys.readouterr().err


def test_a_search_that_is_interrupted_says_what_is_stored_and_goes_on(run, capsys, monkeypatch):
    from shoal.evaluation import decode_systems

    windows, decode = [], decode_systems.decode_window

    def interrupted(*args, **kwargs):
        windows.append(args)
        if len(windows) == 2:
            raise KeyboardInterrupt
        return decode(*args, **kwargs)

    monkeypatch.setattr(decode_systems, "decode_window", interrupted)
    asked = ("--max-increase", "9999%", "--patience", "1")
    assert run(*asked) == 130
    error = capsys.readouterr().err
    assert "shoal: Interrupted" in error
    assert error.rstrip().endswith("run the same command to go on")
    assert run(*asked) == 0
    error = capsys.readouterr().err
    assert re.search(r"transcribe validation, unpruned: 4 of 4 found in \S+, nothing left to do", error)
    decoded = len(windows)
    assert run(*asked) == 0
    assert len(windows) == decoded
    printed = capsys.readouterr().err
    assert printed.count("nothing left to do") >= 4
