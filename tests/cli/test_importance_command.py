"""`shoal audit --metric …`, then everything that reads what it measured."""

from __future__ import annotations

import json
import re

import pytest
from speech_llm_parts import tiny

from shoal.cli import main
from shoal.schema import Audit, Plan, TaskMatrix
from tiny_speech import write_clips


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("importance")
    model, processor = tiny("whisper", "llama", "mlp")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    manifest = write_clips(folder / "clips", translation="eins zwei drei")
    for task in ("asr", "ast", "lm"):
        out = folder / task
        arguments = [
            "--metric",
            "gradient",
            "--metric",
            "ablation",
            "--block-sizes",
            "1,2",
            "--out",
            str(out),
        ]
        arguments += ["--task", task, "--replicates", "50"]
        assert main(["audit", str(folder / "model"), "--data", str(manifest), *arguments]) == 0
    return folder


def test_the_terminal_names_the_layers_that_are_missed_least(place, capsys):
    arguments = [
        "--metric",
        "ablation",
        "--part",
        "attention",
        "--input",
        "speech",
        "--out",
        str(place / "part"),
    ]
    manifest = place / "clips" / "manifest.jsonl"
    assert main(["audit", str(place / "model"), "--data", str(manifest), "--replicates", "20", *arguments]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"ablation: safest to remove: attention of \d \(loss [+-]\d\.\d{3} nats a token\), \d \(loss", said
    )
    assert re.search(r"caution: \d clips are few\.", said)
    assert f"next: shoal select {place / 'part'} --layers N" in said
    document = Audit.load(place / "part" / "audit.json")
    assert {item.part for item in document.inputs["speech"].importance} == {"attention"}


def test_a_plan_by_ablation_takes_the_block_that_loses_least(place):
    out = place / "plan.json"
    assert main(["select", str(place / "asr"), "--layers", "2", "--metric", "ablation", "--out", str(out)]) == 0
    plan, document = Plan.load(out), Audit.load(place / "asr" / "audit.json")
    loss = next(item for item in document.inputs["speech"].importance if item.name == "ablation loss")
    blocks = {block: value for block, value in loss.blocks().items() if block[1] == 2 and sum(block) < 4}
    assert (plan.layers[0], 2) == min(blocks, key=blocks.__getitem__)
    assert plan.source.metric == "ablation"


def test_tasks_stand_side_by_side_and_share_a_plan(place, capsys):
    folders = [str(place / task) for task in ("asr", "ast", "lm")]
    out = place / "tasks.json"
    assert main(["compare", *folders, "--inputs", "text,text,text", "--out", str(out)]) == 0
    matrix = TaskMatrix.load(out)
    assert matrix.measure == "ablation loss"
    assert len(matrix.sides) == 3
    assert {loss.plan for loss in matrix.losses} == {*(side.label for side in matrix.sides), "consensus"}
    assert main(["select", *folders[:2], "--layers", "2", "--input", "text", "--out", str(place / "c.json")]) == 0
    assert Plan.load(place / "c.json").strategy == "consensus"
    report = place / "report.html"
    files = [str(place / "asr"), str(out)]  # a folder is taken wherever its document is
    capsys.readouterr()
    assert main(["report", *files, "--out", str(report)]) == 0
    html = report.read_text()
    assert "Which metric to trust" in html
    assert "Task against task" in html


def test_json_on_stdout_is_the_document(place, capsys):
    arguments = ["--task", "lm", "--replicates", "20", "--json", "--out", str(place / "json")]
    manifest = place / "clips" / "manifest.jsonl"
    assert main(["audit", str(place / "model"), "--data", str(manifest), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "lm"
