"""Every task from a manifest to stored scores: asked, resumed without asking again, scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import shoal
from shoal import tasks
from shoal.cli import main
from shoal.data import Dataset, read_manifests
from shoal.errors import FileFormatError
from shoal.evaluation import decode_window, evaluate, rescore, window
from shoal.models import families
from shoal.models.loading import LoadedModel, load_model
from shoal.models.weights import Resolved
from shoal.pruning.in_memory import prune_in_place
from shoal.schema import Scores
from tiny_audio import csm
from tiny_audio.parts import tokenizer
from tiny_models import tiny
from tiny_speech import TEXTS, loaded, plan, write_clips

EMOTIONS = ("calm", "angry", "sad")


def rows(count: int = 4) -> list[dict[str, object]]:
    return [
        {
            "translation": f"somebody said: {text}",
            "emotion": EMOTIONS[place % 3],
            "sentiment": ["good", "bad"][place % 2],
            "answer": text,
            "answers": [text.upper(), "no idea"],
            "choices": [text, "something else", "nothing"],
        }
        for place, text in enumerate(TEXTS[:count])
    ]


def manifest(folder: Path, count: int = 4) -> Path:
    path = write_clips(folder, count)
    lines = [json.loads(line) | more for line, more in zip(path.read_text().splitlines(), rows(count), strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def data(folder: Path, task: str = "asr") -> Dataset:
    return read_manifests([str(manifest(folder / "clips"))], needs_text=tasks.get(task).needs_text)


def model_for(task: tasks.Task, folder: Path) -> LoadedModel:
    if not task.answers_in_speech:
        return loaded()
    built = csm.BUILDS["CsmForConditionalGeneration"].write(folder / "model")
    return load_model(str(built), device="cpu", dtype="float32", trust_remote_code=False)


def measured(scores: Scores) -> list[dict[str, float]]:
    return [{name: found.value.value for name, found in system.measures.items()} for system in scores.systems]


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_is_asked_resumed_and_scored_again(name, tmp_path, monkeypatch) -> None:
    task = tasks.get(name)
    model, clips = model_for(task, tmp_path), data(tmp_path, name)
    gone = plan(1, depth=model.info().depth)
    options = {"plans": [gone], "out": tmp_path / "out", "replicates": 20}
    found = evaluate(model, clips, name, **options)
    assert [list(system.measures) for system in found.systems] == [list(task.scored_by)] * 2
    headline = found.systems[1].measures[task.scored_by[0]]
    assert headline.delta is not None
    assert headline.value.low is not None
    monkeypatch.setattr(decode_window, "decode_window", None)
    again = evaluate(model, data(tmp_path, name), name, **options)
    monkeypatch.setattr(window, "prepare", None)
    assert again.systems == found.systems == rescore(tmp_path / "out", replicates=20).systems


def test_a_loss_is_paired_with_the_unpruned_model_s_and_is_that_of_the_pruned_folder(tmp_path) -> None:
    model, clips = loaded(), data(tmp_path, "lm")
    pruned = evaluate(model, clips, "lm", plans=[plan(1, 2)], replicates=20).systems[1]
    shallow = loaded()
    prune_in_place(shallow.model, [1, 2], family=shallow.family)
    shallow.forget_info()
    alone = evaluate(shallow, data(tmp_path, "lm"), "lm", replicates=20).systems[0]
    for name in tasks.get("lm").scored_by:
        assert pruned.measures[name].value.value == pytest.approx(alone.measures[name].value.value, rel=1e-5)


def test_a_text_llm_models_the_same_text(tmp_path) -> None:
    words, model = tokenizer(), tiny("llama")
    model.resize_token_embeddings(len(words))
    llm = LoadedModel("text", tmp_path, model, words, None, families.find(model), "causal_lm")
    clips = data(tmp_path, "lm")
    found = evaluate(llm, clips, "lm", replicates=20).systems[0]
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for row in clips.rows:
            ids = torch.tensor([[words.eos_token_id, *words(row.text)["input_ids"]]])
            nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
    size = sum(len(row.text.encode()) for row in clips.rows)
    assert found.measures["loss"].value.value == pytest.approx(nats / tokens, rel=1e-5)
    assert found.measures["bits per byte"].value.value == pytest.approx(nats / size / 0.6931471805599453, rel=1e-5)


MOOD = "kind: ser\ninstruction: Is the news good?\nfields: {label: sentiment}\nlabels: [good, bad]\n"


def test_a_user_s_task_is_scored_again_without_its_file(tmp_path) -> None:
    path = tmp_path / "mood.yaml"
    path.write_text(MOOD)
    model, clips = loaded(), data(tmp_path, "ser")
    found = evaluate(model, clips, str(path), out=tmp_path / "out", replicates=20)
    assert found.task == "mood"
    assert found.task_settings["labels"] == ["good", "bad"]
    path.unlink()
    again = rescore(tmp_path / "out", replicates=20)
    assert measured(again) == measured(found)
    assert again.task_settings == found.task_settings


@pytest.mark.parametrize("change", ["labels: [bad, good, odd]", "instruction: Good news?", "answered_by: [choose]"])
def test_outputs_of_a_changed_task_are_not_mixed(change, tmp_path) -> None:
    path, model = tmp_path / "mood.yaml", loaded()
    path.write_text(MOOD + 'scored_by: ["UAR, chosen"]\n')
    evaluate(model, data(tmp_path, "ser"), str(path), out=tmp_path / "out", replicates=20)
    key = change.partition(":")[0]
    path.write_text(
        "\n".join(line for line in path.read_text().splitlines() if not line.startswith(key)) + f"\n{change}\n"
    )
    with pytest.raises(FileFormatError, match=rf"made with task\.{key}"):
        evaluate(model, data(tmp_path, "ser"), str(path), out=tmp_path / "out", replicates=20)


def test_choosing_alone_decodes_nothing(tmp_path, monkeypatch) -> None:
    path = tmp_path / "mood.yaml"
    path.write_text(MOOD + 'scored_by: ["UAR, chosen"]\nanswered_by: [choose]\n')
    monkeypatch.setattr(decode_window, "_decoded_together", None)
    monkeypatch.setattr(decode_window, "_continuously", None)
    found = evaluate(loaded(), data(tmp_path, "ser"), str(path), replicates=20)
    assert found.systems[0].generated_tokens == 0
    assert list(found.systems[0].measures) == ["UAR, chosen"]


def test_questions_without_choices_have_no_score_of_choosing(tmp_path) -> None:
    path = manifest(tmp_path / "clips")
    lines = [{k: v for k, v in json.loads(line).items() if k != "choices"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate(loaded(), read_manifests([str(path)]), "sqa", replicates=20)
    assert list(found.systems[0].measures) == ["exact match", "token F1"]


@pytest.fixture
def model_folder(monkeypatch):
    monkeypatch.setattr(shoal, "load", lambda *_, **__: loaded())
    monkeypatch.setattr("shoal.models.weights.resolve", lambda ref: Resolved(ref, Path(ref), "folder"))
    return "MODEL"


def test_commands_take_a_task_from_a_file(model_folder, tmp_path, capsys) -> None:
    clips = manifest(tmp_path / "clips", 6)
    mood, likely = tmp_path / "mood.yaml", tmp_path / "likely.yaml"
    mood.write_text(MOOD)
    likely.write_text("kind: asr\nanswered_by: [loss]\nscored_by: [perplexity]\n")
    few = ["--replicates", "200"]
    for command, task in (
        (["audit", model_folder], mood),
        (["evaluate", model_folder, *few], mood),
        (["search", model_folder, *few, "--max-layers", "3"], likely),
    ):
        out = tmp_path / command[0]
        run = [*command, "--data", str(clips), "--task", str(task), "--out", str(out)]
        assert main(run) in (0, 4), (command, capsys.readouterr())
        assert task.stem in capsys.readouterr().out
    main(["evaluate", "--rescore", "--out", str(tmp_path / "evaluate"), *few])
    assert "UAR, chosen" in capsys.readouterr().out


def test_a_bad_task_file_is_one_line_and_exit_2(model_folder, tmp_path, capsys) -> None:
    path, clips = tmp_path / "mood.yaml", manifest(tmp_path / "clips")
    path.write_text("kind: ser\nlabel: sentiment\n")
    assert main(["evaluate", model_folder, "--data", str(clips), "--task", str(path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (Path.cwd() / "evaluation").exists()
