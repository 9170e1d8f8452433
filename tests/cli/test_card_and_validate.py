"""`shoal card` and `shoal validate`: what they print, their exit codes, and what is said of models that speak."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from xml.etree import ElementTree

import pytest

import shoal
from card_documents import around, bench, data, delta, info, plan, provenance, scores, system
from shoal.cli import main
from shoal.cli.card import warn_if_unheard
from shoal.schema import HealRecord, Scores
from tiny_audio import BUILDS
from tiny_speech import write_clips

HEARS = "Qwen2AudioForConditionalGeneration"
SPEAKS = "CsmForConditionalGeneration"
WARNING = "answers in speech, and nothing was tested"


def run(capsys, *arguments) -> tuple[int, str, list[str]]:
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err.splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`whole`, `pruned` and clips to hear."""
    folder = tmp_path_factory.mktemp("models")
    build = BUILDS[HEARS]
    build.write(folder / "whole")
    whole = shoal.load(str(folder / "whole"))
    shoal.prune(whole, plan([1], build.depth), folder / "pruned", verify=False)
    write_clips(folder / "clips", 3)
    return folder


@pytest.fixture
def pruned(place, tmp_path):
    return shutil.copytree(place / "pruned", tmp_path / "pruned")


@pytest.fixture
def scores_file(place, tmp_path):
    return scores(shoal.load(str(place / "pruned")).info()).save(tmp_path / "scores.json")


@pytest.fixture
def speaker(tmp_path, capsys, monkeypatch):
    """A pruned model that answers in speech, and what pruning said."""
    # By name: `shoal.prune` is the function of the API where it is looked up as an attribute.
    monkeypatch.setattr(import_module("shoal.pruning.from_folder"), "fits_in_memory", lambda path: False)
    BUILDS[SPEAKS].write(tmp_path / "speaks")
    folder = tmp_path / "shallower"
    code, out, err = run(capsys, "prune", tmp_path / "speaks", "--layers-list", 1, "--out", folder)
    assert code == 0
    assert WARNING not in out
    return folder, err


def test_a_card_is_written_attached_and_written_again_from_the_folder_alone(capsys, pruned, scores_file):
    code, out, err = run(capsys, "card", pruned, "--scores", scores_file, "--attach")
    assert (code, err) == (0, [])
    assert "tasks tested: asr" in out
    assert out.splitlines()[-1] == str(pruned / "README.md")
    text = (pruned / "README.md").read_text()
    scores_file.unlink()
    code, out, _ = run(capsys, "card", pruned, "--json", "--out", pruned.parent / "other.md")
    assert code == 0
    found = json.loads(out)
    assert (found["tested"], found["removed"]) == (["asr"], [1])
    assert all(f"- {line}" in text.splitlines() for line in found["not_validated"])
    assert (pruned.parent / "other.md").read_text() == text


@pytest.mark.parametrize("command", ["card", "validate"])
def test_foreign_scores_are_one_line_and_exit_2(capsys, place, scores_file, command):
    promise = ["--max-wer", "90%"] if command == "validate" else []
    code, out, err = run(capsys, command, place / "whole", "--scores", scores_file, *promise)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"shoal: {scores_file}: this is about another model than {place / 'whole'}")


@pytest.mark.parametrize(
    ("promises", "code"),
    [
        (["--max-wer", "35%"], 0),
        (["--max-wer", "25%"], 4),
        (["--max-wer", "30.5%"], 4),
        (["--max-wer", "30.5%", "--point"], 0),
        (["--max-wer-increase", "60%", "--require-task", "asr", "--require", "CER<=20%"], 0),
        (["--max-wer-increase", "60%", "--require-task", "tts"], 4),
        (["--min-bleu", "1"], 4),
        (["--max-bleu-drop", "1"], 4),
        (["--min-chrf", "1"], 4),
        (["--min-accuracy", "1%"], 4),
        (["--min-uar", "1%"], 4),
        (["--max-group-increase", "900%"], 4),
        (["--max-latency-ratio", "9"], 4),
        (["--min-speedup", "0.1"], 4),
        (["--max-size", "1GB"], 4),
        ([], 2),
        (["--require", "good"], 2),
        (["--max-wer", "much"], 2),
        (["--max-wer", "35"], 2),
        (["--min-accuracy", "80"], 2),
        (["--max-wer", "35%", "--data", "m.jsonl"], 2),
        (["--max-wer", "35%", "--against", "other"], 2),
        (["--max-wer", "35%", "--attach"], 2),
    ],
)
def test_files_alone_are_judged(capsys, tmp_path, promises, code):
    path = scores(info()).save(tmp_path / "scores.json")
    found, out, err = run(capsys, "validate", "--scores", path, *promises)
    assert found == code
    assert len(err) == (0 if code == 0 else 1)
    assert bool(out) == (code != 2)


def test_what_to_do_about_requirements_that_do_not_hold(capsys, tmp_path):
    path = scores(info()).save(tmp_path / "scores.json")
    asked = ["--max-wer", "30.5%", "--max-wer-increase", "5%", "--min-bleu", "1"]
    code, out, _ = run(capsys, "validate", "--scores", path, *asked)
    assert code == 4
    assert "judged by the bound of each interval: 0 of 3 hold" in out
    assert "next, where broken: remove fewer layers, or heal" in out
    assert "next, where cannot tell: evaluate more clips" in out
    assert "next, where not measured: measure it: shoal evaluate" in out
    _, out, _ = run(capsys, "validate", "--scores", path, "--max-wer", "35%")
    assert "all requirements hold" in out
    assert "next" not in out


def test_a_bench_alone_is_judged_and_the_result_is_for_machines(capsys, tmp_path):
    path = bench(info(), around(0.8)).save(tmp_path / "bench.json")
    given = [
        "validate",
        "--bench",
        path,
        "--max-latency-ratio",
        0.9,
        "--min-speedup",
        1.5,
        "--max-size",
        "3MB",
    ]
    code, out, err = run(capsys, *given, "--json", "--junit", tmp_path / "junit.xml")
    assert code == 4
    assert [each["verdict"] for each in json.loads(out)["findings"]] == ["holds", "broken", "holds"]
    assert err == ["shoal: speedup >= 1.5: broken (it is below the limit)"]
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["speedup >= 1.5"]


def test_nothing_to_judge_is_bad_input(capsys, place, tmp_path):
    for arguments, words in (
        (["validate", "--max-wer", "5%"], "nothing to judge"),
        (["validate", "--scores", tmp_path / "none.json", "--max-wer", "5%"], "no such file"),
        (["validate", tmp_path / "nowhere", "--max-wer", "5%"], "nowhere"),
        (["card", tmp_path / "nowhere"], "no such folder"),
        (["card", place / "clips"], "clips"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out, len(err)) == (2, "", 1)
        assert words in err[0]


def test_a_checkpoint_is_evaluated_resumed_and_keeps_its_result(capsys, place, pruned, tmp_path):
    given = ["validate", pruned, "--data", place / "clips" / "manifest.jsonl", "--against", place / "whole"]
    given += ["--out", tmp_path / "out", "--max-new-tokens", 4, "--replicates", 20, "--max-size", "9GB"]
    assert run(capsys, *given, "--max-wer", "100000%", "--attach")[0] == 0
    found = Scores.load(tmp_path / "out" / "scores.json")
    outputs = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "outputs").glob("*.jsonl")}
    assert len(outputs) == 2
    rate = found.systems[1].measures["WER"].value.value
    assert rate > 0
    code, out, err = run(capsys, *given, "--max-wer", f"{99 * rate}%", "--point")
    assert code == 4
    assert any("6 of 6 found in" in line and "nothing left to do" in line for line in err)
    assert "broken" in out
    assert {path: path.stat().st_mtime_ns for path in outputs} == outputs
    # What was attached is enough.
    size = sum(path.stat().st_size for path in pruned.glob("*.safetensors"))
    for limit, expected in ((size, 0), (size - 1, 4)):
        code, out, _ = run(capsys, "validate", pruned, "--require-task", "asr", "--max-size", limit)
        assert code == expected
        assert "asr on" in out


def test_a_pruned_model_that_speaks_warns_until_a_result_is_attached(capsys, speaker, tmp_path):
    folder, said = speaker
    assert [line for line in said if WARNING in line] == [said[-1]]
    assert said[-1].startswith(f"shoal: warning: {folder} ")
    text = (folder / "README.md").read_text()
    assert "> [!WARNING]" in text.partition("## What was removed")[0]
    own = shoal.load(str(folder)).info()
    heard, spoke = scores(own), scores(own, task="tts")
    heard.save(tmp_path / "heard.json")
    spoke.save(tmp_path / "spoke.json")
    judged = ["validate", folder, "--scores", tmp_path / "heard.json", "--max-wer", "90%"]
    for arguments in (["card", folder], judged):
        code, _, err = run(capsys, *arguments)
        assert (code, len(err)) == (0, 1)
        assert WARNING in err[0]
    code, _, err = run(capsys, "card", folder, "--scores", tmp_path / "spoke.json", "--attach")
    assert (code, err) == (0, [])
    assert "> [!WARNING]" not in (folder / "README.md").read_text()
    assert run(capsys, *judged)[2] == []


def test_a_healed_model_that_speaks_warns(capsys, speaker, place, tmp_path, monkeypatch):
    folder, _ = speaker
    record = HealRecord(
        provenance=provenance(),
        model=shoal.load(str(folder)).info(),
        target="joint",
        task="asr",
        data=data(),
        trained_parameters=1,
    )
    monkeypatch.setattr(import_module("shoal.healing.run"), "finished", lambda *_: record)
    given = ["heal", folder, "--data", place / "clips" / "manifest.jsonl", "--out", tmp_path / "healed"]
    code, _, err = run(capsys, *given)
    assert code == 0
    assert WARNING in err[-1]


def test_whoever_measures_a_changed_model_that_speaks_is_warned(capsys):
    speaks = info(family="csm", class_name=SPEAKS)
    without = [system("full"), system("p", 0.3, delta(0.1, 0.5), plan=plan([1]))]
    for documents, warned in (
        ([scores(speaks, without)], True),
        ([scores(speaks, [system("full")])], False),
        ([scores(speaks.model_copy(update={"removed_layers": [1]}), [system("full")])], True),
        ([scores(speaks, without, task="tts")], False),
        ([scores(info(), without)], False),
        ([bench(speaks, around(0.8))], True),
    ):
        warn_if_unheard(documents, None)
        assert (WARNING in capsys.readouterr().err) == warned
