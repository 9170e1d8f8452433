"""`shoal train` from end to end, on tiny bases and a few clips."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from speech_llm_parts import encoder_config, feature_extractor, text_config, tokenizer
from transformers import AutoModel, AutoModelForCausalLM

import shoal
import tiny_speech
from shoal.cli import main
from shoal.schema import TrainingRecord
from shoal.training import run


@pytest.fixture
def recipe(tmp_path):
    """Two steps of CTC and two of the language model, with low-rank updates of the decoder."""
    torch.manual_seed(0)
    AutoModel.from_config(encoder_config("wavlm")).save_pretrained(tmp_path / "encoder")
    feature_extractor("wavlm").save_pretrained(tmp_path / "encoder")
    words = tokenizer()
    AutoModelForCausalLM.from_config(text_config("llama", len(words))).save_pretrained(tmp_path / "decoder")
    words.save_pretrained(tmp_path / "decoder")
    tiny_speech.write_clips(tmp_path / "clips", 6)
    path = tmp_path / "recipe.yaml"
    content = {
        "encoder": str(tmp_path / "encoder"),
        "decoder": str(tmp_path / "decoder"),
        "projector": {"type": "mlp", "stack": 2, "hidden_size": 24},
        "lora": {"rank": 2},
        "train": [{"data": "clips/manifest.jsonl"}],
        "validation": [{"data": "clips/manifest.jsonl", "limit": 2}],
        "ctc": {"steps": 2, "clips": 2},
        "lm": {"steps": 2, "clips": 2, "ctc_weight": 0.1, "ctc_every": 2},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_command_trains_once_and_what_it_wrote_loads(recipe, tmp_path, capsys, monkeypatch):
    out = tmp_path / "trained"
    line = ["train", str(recipe), "--data-root", str(tmp_path), "--features", str(tmp_path / "features"),
            "--max-positions", "64", "--out", str(out), "--device", "cpu"]  # fmt: skip
    assert main([*line, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(stage["name"], stage["steps"], stage["clips"]) for stage in record["stages"]] == [
        ("ctc", 2, 4),
        ("lm", 2, 4),
    ]
    assert record["validation"][0]["loss_as_saved"] == pytest.approx(record["validation"][0]["loss"], rel=0.05)
    assert TrainingRecord.load(out / "shoal-training.json").recipe == record["recipe"]
    assert shoal.load(str(out)).inputs == ("speech", "text")
    # Again: it is done, and nothing is trained. Another recipe finds the folder taken.
    monkeypatch.setattr(run.loop, "train", lambda *_, **__: pytest.fail("it was trained already"))
    assert main(line) == 0
    again = capsys.readouterr()
    assert again.out.splitlines()[-1] == str(out)
    assert "nothing left to do: this recipe is carried out\n" in again.err
    recipe.write_text(recipe.read_text().replace("rank: 2", "rank: 3"))
    assert main(line) == 2
    assert capsys.readouterr().err.endswith(
        "it holds a model trained with lora.alpha 2.0, not 3.0; choose another with --out, or replace it with --force\n"
    )
