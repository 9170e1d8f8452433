"""What every registered task keeps to."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from shoal import tasks
from shoal.data import Row
from shoal.errors import ManifestError, UsageError
from shoal.evaluation.output import Output
from shoal.evaluation.scores import registry
from shoal.evaluation.scores.answers import answers_of
from shoal.tasks.settings import NEEDS

FIELDS = {
    "text": "a tone",
    "translation": "one  sound of a bell",
    "target_lang": "en",
    "emotion": "calm\n",
    "answer": " a sound",
    "answers": ["noise"],
    "choices": ["a sound", "a word"],
}
ROW = Row("r", Path("a.wav"), 1.0, text="a tone", lang="en", fields=FIELDS, manifest="m.jsonl", line=3)
WRONG = "quite another thing"
PERFECT = {"BLEU": 100.0, "chrF": 100.0, "perplexity": 1.0, "word perplexity": 1.0}
"""Where it is not 1 or, where less is better, 0."""


@pytest.fixture(params=tasks.names())
def task(request) -> tasks.Task:
    return tasks.get(request.param)


def test_names_are_the_registry_s(task) -> None:
    assert tasks.get(task.name) is task
    assert task.title
    assert task.settings.kind == task.name


def test_it_is_a_short_file_and_a_yaml(task) -> None:
    folder = files("shoal.tasks")
    code = (folder / f"{task.name}.py").read_text(encoding="utf-8").splitlines()
    assert 5 < len(code) <= 100
    said = yaml.safe_load((folder / f"{task.name}.yaml").read_text(encoding="utf-8"))
    assert {"title", "instruction", "fields", "normaliser", "inputs", "answered_by", "scored_by"} <= set(said)
    assert not {"name", "kind"} & set(said)


def test_the_instruction_is_one_plain_line(task) -> None:
    assert task.instruction == " ".join(task.instruction.split())
    assert task.instruction
    assert "<|" not in task.instruction
    assert "{" not in task.instruction


def test_the_target_is_one_line(task) -> None:
    target = task.target(ROW)
    assert target
    assert target == " ".join(target.split())


def test_the_target_is_the_first_accepted_answer(task) -> None:
    target = task.target(ROW)
    accepted = task.accepted(target, FIELDS)
    assert accepted[0] == target
    assert len(set(accepted)) == len(accepted)


def test_the_target_is_among_the_choices(task) -> None:
    other = replace(ROW, id="other", fields={**FIELDS, "emotion": "angry"})
    seen = task.on([ROW, other])
    normalise, choices = seen.normaliser("en"), seen.choices(ROW)
    assert bool(choices) == ("choose" in task.answered_by)
    if choices:
        assert len(choices) > 1
        assert normalise(seen.target(ROW)) in map(normalise, choices)
    assert seen.on([]) is seen
    assert seen.target(ROW) == task.target(ROW)


def test_a_row_without_the_answer_is_refused_by_its_place(task) -> None:
    empty = Row(id="r", audio=Path("a.wav"), duration=1.0, manifest="m.jsonl", line=3)
    with pytest.raises(ManifestError, match=r"^m\.jsonl:3: "):
        task.target(empty)


@pytest.mark.parametrize("lang", ["en", "de", "hi", "zh", "xx", "", None])
def test_the_normaliser_says_what_it_is_and_is_stable(task, lang) -> None:
    normaliser = task.normaliser(lang)
    once = normaliser("  Ein Ton,  oder 2? ")
    assert normaliser(once) == once
    assert once == " ".join(once.split())
    assert normaliser.label == f"{normaliser.name} {normaliser.version}"
    assert normaliser.version[0].isdigit()
    assert normaliser("") == ""


@pytest.mark.parametrize("lang", ["en", "zh", None])
def test_the_unit_is_one_that_scorers_know(task, lang) -> None:
    assert task.unit(lang) in ("word", "char")


def test_it_takes_speech_or_text_and_alone_only_text(task) -> None:
    assert set(task.inputs) <= {"speech", "text"}
    assert task.inputs == ("text",) if task.plain_text else "speech" in task.inputs


def test_a_row_without_transcript_is_refused_only_where_it_is_needed(task) -> None:
    silent = replace(ROW, text="")
    if task.needs_text:
        with pytest.raises(ManifestError, match="no text"):
            task.target(silent)
    else:
        assert task.target(silent) == task.target(ROW)


def test_what_it_is_scored_by_exists_and_is_asked_for(task) -> None:
    assert tuple(score.name for score in registry.scores_of(task)) == task.scored_by
    assert {NEEDS[name] for name in task.scored_by} == set(task.answered_by)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_words_are_the_units_with_spaces_between(task, lang) -> None:
    units = task.words("ab c", lang).split(" ")
    assert units == (["ab", "c"] if task.unit(lang) == "word" else ["a", "b", "c"])


def output(task: tasks.Task, place: int, said: str, loss: float) -> Output:
    """An answer, the likeliest choice and the loss of one clip."""
    row = replace(ROW, fields={**FIELDS, "emotion": ["calm", "angry"][place % 2]})
    return Output(
        id=str(place),
        audio_filepath="a.wav",
        duration=1.0,
        offset=0.0,
        text=task.target(row),
        pred_text=said,
        lang="en",
        speaker=None,
        tokens=1,
        truncated=False,
        encode_seconds=0.0,
        prefill_seconds=0.0,
        decode_seconds=0.0,
        fields=row.fields,
        choices={said: -1.0, "neither of them": -50.0},
        loss=(loss, 4),
    )


def values(task: tasks.Task, outputs: list[Output]) -> dict[str, float]:
    """Score → its value, counted in two parts."""
    found = registry.scores_of(task, {task.normaliser("en")(each.text) for each in outputs})
    return {
        score.name: float(
            score.value(
                sum(score.statistics(answers_of(task, part)).sum(axis=0) for part in (outputs[:3], outputs[3:]))
            )
        )
        for score in found
    }


def test_right_answers_are_perfect_and_wrong_ones_are_not_on_every_score(task) -> None:
    targets = [output(task, place, "", 0.0).text for place in range(4)]
    right = values(task, [output(task, place, said, 0.0) for place, said in enumerate(targets)])
    wrong = values(task, [output(task, place, WRONG, 9.0) for place in range(4)])
    for name in task.scored_by:
        score = registry.BY_NAME[name]
        better = right[name] > wrong[name] if score.higher_is_better else right[name] < wrong[name]
        assert better, name
        assert right[name] == pytest.approx(PERFECT.get(name, float(score.higher_is_better))), name


def test_other_accepted_answers_are_right_too(task) -> None:
    target = task.target(ROW)
    for accepted in task.accepted(target, FIELDS)[1:]:
        headline = registry.headline(task)
        found = headline.statistics(answers_of(task, [output(task, 0, accepted, 0.0)]))
        assert float(headline.value(found.sum(axis=0))) == 1
    assert np.isfinite(registry.headline(task).statistics(answers_of(task, [output(task, 0, "x", 0.0)]))).all()


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'asrr'.*asr.*or give a YAML file"):
        tasks.get("asrr")
