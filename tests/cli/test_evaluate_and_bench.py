"""`shoal evaluate` and `shoal bench`: what they print, and how they end."""

from __future__ import annotations

import json

import pytest

from shoal import tasks
from shoal.cli import main
from shoal.cli.progress import Reporter
from shoal.schema import Bench, Scores
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
def evaluate(good, tmp_path):
    def call(*more):
        given = ["--data", str(good / "clips" / "manifest.jsonl"), "--plan", str(good / "plan.json")]
        options = ["--out", str(tmp_path / "out"), "--max-new-tokens", "8", "--replicates", "50"]
        return main(["evaluate", str(good / "model"), *given, *options, *more])

    return call


def test_a_table_for_a_person(evaluate, tmp_path, capsys):
    assert evaluate() == 0
    printed = capsys.readouterr().out
    assert "full" in printed
    assert "manual-2" in printed
    assert "whisper-english" in printed
    assert str(tmp_path / "out" / "scores.json") in printed.replace("\n", "")
    assert "caution: 6 clips are few." in printed
    assert "next: shoal bench" in printed or "next: every plan costs quality" in printed


def test_json_for_a_machine_is_all_there_is_on_stdout(evaluate, tmp_path, capsys):
    assert evaluate("--json") == 0
    scores = Scores.parse(json.loads(capsys.readouterr().out), where="stdout")
    assert scores == Scores.load(tmp_path / "out" / "scores.json")


def test_a_limit_that_does_not_hold_ends_with_4_after_the_table(evaluate, capsys):
    assert evaluate("--max-wer", "1%") == 4
    captured = capsys.readouterr()
    assert "manual-2" in captured.out
    assert "shoal: WER <= 1.0%: broken" in captured.err


def test_every_requirement_on_scores_that_validate_knows_can_be_given(evaluate, capsys):
    assert evaluate("--require", "CER<=0.1%", "--max-wer", "9999%") == 4
    assert "CER <= 0.1%: broken" in capsys.readouterr().err


def test_a_limit_that_holds_says_so_and_ends_with_0(evaluate, capsys):
    assert evaluate("--max-wer", "9999%", "--max-wer-increase", "9999%") == 0
    assert "judged by the bound of each interval: all requirements hold" in capsys.readouterr().out


def test_the_bound_is_judged_as_in_validate_unless_the_point_is_asked_for(evaluate, tmp_path, capsys):
    assert evaluate("--json") == 0
    rate = Scores.load(tmp_path / "out" / "scores.json").systems[1].measures["WER"].value
    assert rate.value < rate.high
    limit = f"{100 * (rate.value + rate.high) / 2}%"
    assert evaluate("--max-wer", limit) == 4
    assert "cannot tell" in capsys.readouterr().err
    assert evaluate("--max-wer", limit, "--point") == 0
    assert main(["validate", "--scores", str(tmp_path / "out" / "scores.json"), "--max-wer", limit]) == 4


def test_rescoring_needs_no_data(evaluate, tmp_path, capsys):
    assert evaluate("--json") == 0
    first = Scores.parse(json.loads(capsys.readouterr().out), where="stdout")
    folder = ["--out", str(tmp_path / "out"), "--replicates", "50"]
    assert main(["evaluate", "anything", "--rescore", "--json", *folder]) == 0
    again = Scores.parse(json.loads(capsys.readouterr().out), where="stdout")
    assert again.systems == first.systems


@pytest.mark.parametrize(
    ("task", "fields", "headings"),
    [
        ("ast", {"translation": "A tone."}, ["BLEU", "relative", "p", "chrF", "hit the token limit"]),
        ("ser", {"emotion": "happy"}, ["accuracy", "p", "UAR", "macro-F1", "hit the token limit"]),
    ],
)
def test_another_task_shows_its_own_scores_and_needs_no_transcript(good, tmp_path, capsys, task, fields, headings):
    data = ["--data", str(write_clips(tmp_path / "clips", 3, text=None, **fields)), "--task", task]
    few = ["--out", str(tmp_path / "out"), "--max-new-tokens", "4", "--replicates", "20"]
    assert main(["evaluate", str(good / "model"), "--plan", str(good / "plan.json"), *data, *few]) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("system")]
    assert [each.strip() for each in line.split("  ") if each.strip()] == ["system", "removed", *headings]
    assert "WER" not in printed
    stored = Scores.load(tmp_path / "out" / "scores.json")
    # All rows have the same emotion, so there was none to choose among.
    written = [name for name in tasks.get(task).scored_by if "chosen" not in name]
    assert list(stored.systems[1].measures) == written


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--task", "asrr"], "unknown task 'asrr'"),
        (["--task", "nothing.yaml"], "nothing.yaml: no such file"),
        (["--asr", "pkg:reference"], "the task asr is not answered in speech"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused_before_anything_is_read(more, said, capsys):
    assert main(["evaluate", "nowhere", "--data", "nothing", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_bench_of_a_task_without_audio_is_refused(good, capsys):
    data = ["--data", str(good / "clips" / "manifest.jsonl"), "--task", "lm"]
    assert main(["bench", str(good / "model"), *data, "--clips", "1"]) == 2
    assert "the task lm does not take the input 'speech'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-wer", "much"], "--max-wer: 'much' is not a share"),
        (["--cluster", "room"], "use speaker or utterance"),
        (["--group-by", "accent"], "no clip has the field 'accent'"),
        (["--group-by", "spaeker"], "did you mean speaker? fields are"),
        (["--task", "singing"], "unknown task"),
    ],
)
def test_bad_flags_are_one_line(evaluate, capsys, more, said):
    assert evaluate(*more) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shoal:")]
    assert said in line


def test_an_increase_without_anything_to_compare_is_refused_at_once(capsys):
    assert main(["evaluate", "nowhere", "--data", "nothing", "--max-wer-increase", "5%"]) == 2
    assert "add --plan or --against" in capsys.readouterr().err


def test_no_data_is_refused(capsys):
    assert main(["evaluate", "nowhere"]) == 2
    assert "--data" in capsys.readouterr().err


def test_bench_prints_a_table_and_writes_its_file(good, tmp_path, capsys):
    data = ["--data", str(good / "clips" / "manifest.jsonl"), "--plan", str(good / "plan.json")]
    few = ["--clips", "2", "--repeats", "1", "--new-tokens", "3", "--out", str(tmp_path / "bench.json")]
    assert main(["bench", str(good / "model"), *data, *few]) == 0
    assert "manual-2" in capsys.readouterr().out
    assert main(["bench", str(good / "model"), *data, *few, "--json"]) == 0
    found = Bench.parse(json.loads(capsys.readouterr().out), where="stdout")
    assert found == Bench.load(tmp_path / "bench.json")


def test_the_same_bench_again_has_nothing_to_do_and_advice_says_what_is_next(good, tmp_path, capsys):
    line = ["bench", str(good / "model"), "--data", str(good / "clips" / "manifest.jsonl"), "--clips", "2"]
    line += ["--repeats", "1", "--new-tokens", "3", "--out", str(tmp_path / "bench.json")]
    assert main(line) == 0
    assert "next: name plans with --plan" in capsys.readouterr().out
    assert main(line) == 0
    assert "time: 2 of 2 found, nothing left to do" in capsys.readouterr().err
    planned = [*line, "--plan", str(good / "plan.json")]
    assert main(planned) == 2
    assert "it holds a bench with systems.manual-2" in capsys.readouterr().err
    assert main([*planned, "--force"]) == 0
    assert "of the unpruned model's time for a clip" in capsys.readouterr().out


def test_an_interrupted_evaluation_says_what_is_stored_and_the_next_what_it_found(good, tmp_path, capsys, monkeypatch):
    line = ["evaluate", str(good / "model"), "--data", str(write_clips(tmp_path / "clips", 3)), "--out"]
    line += [str(tmp_path / "out"), "--max-new-tokens", "4", "--replicates", "20", "--batch-size", "1"]
    report = Reporter.__call__

    def stop_at_two(self, name, done, total):
        report(self, name, done, total)
        if name == "transcribe" and done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "__call__", stop_at_two)
        assert main(line) == 130
    assert capsys.readouterr().err.endswith("shoal: Interrupted: 2 of 3 stored; run the same command to go on\n")
    assert main(line) == 0
    assert f"transcribe: 2 of 3 found in {tmp_path / 'out'}\n" in capsys.readouterr().err
    assert main(line) == 0
    assert f"transcribe: 3 of 3 found in {tmp_path / 'out'}, nothing left to do\n" in capsys.readouterr().err


def test_a_pruned_checkpoint_is_called_by_its_name_and_says_what_it_lacks(good, tmp_path, capsys):
    pruned = tmp_path / "shallow"
    given = ["--plan", str(good / "plan.json"), "--out", str(pruned)]
    assert main(["prune", str(good / "model"), *given]) == 0
    capsys.readouterr()
    given = ["--data", str(good / "clips" / "manifest.jsonl"), "--against", str(good / "model")]
    options = ["--out", str(tmp_path / "out"), "--max-new-tokens", "8", "--replicates", "50"]
    assert main(["evaluate", str(pruned), *given, *options]) == 0
    out = capsys.readouterr().out
    assert "shallow itself lacks layers 1–2" in out
    # It is a pruned model, so the advice is about what it costs.
    assert "next: shoal bench" in out or "next: every plan costs quality" in out
    rows = [line.split() for line in out.splitlines()]
    assert any(row[:2] == ["shallow", "2"] for row in rows)
    assert not any("full" in row for row in rows)
    baseline, system = Scores.load(tmp_path / "out" / "scores.json").systems
    assert (baseline.name, baseline.missing) == ("baseline", [])
    assert (system.name, system.removed, system.missing) == ("shallow", [], [1, 2])
    # Outputs keep their file: a run of before goes on.
    assert system.outputs_file == "outputs/full.jsonl"
    given = ["--data", str(good / "clips" / "manifest.jsonl"), "--out", str(tmp_path / "bench.json")]
    assert main(["bench", str(pruned), *given, "--clips", "1", "--repeats", "1", "--new-tokens", "2"]) == 0
    assert [system.name for system in Bench.load(tmp_path / "bench.json").systems] == ["shallow"]
