"""What every registered task keeps to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shoal import tasks
from shoal.data import Row
from shoal.errors import ManifestError, UsageError
from shoal.evaluate import quality

ROW = Row(
    id="r",
    audio=Path("a.wav"),
    duration=1.0,
    text="a tone",
    lang="en",
    fields={"text": "a tone", "translation": "one  sound", "target_lang": "en", "emotion": "calm\n"},
    manifest="m.jsonl",
    line=3,
)


@pytest.fixture(params=tasks.names())
def task(request) -> tasks.Task:
    return tasks.get(request.param)


def test_names_are_the_registry_s(task) -> None:
    assert tasks.get(task.name) is task
    assert task.title


def test_the_instruction_is_one_plain_line(task) -> None:
    assert task.instruction == " ".join(task.instruction.split())
    assert task.instruction
    assert "<|" not in task.instruction


def test_the_target_is_one_line(task) -> None:
    target = task.target(ROW)
    assert target
    assert target == " ".join(target.split())


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
    assert task.inputs == ("text",) if task.alone else "speech" in task.inputs


def test_a_row_without_transcript_is_refused_only_where_it_is_needed(task) -> None:
    silent = replace(ROW, text="")
    if task.needs_text:
        with pytest.raises(ManifestError, match="no text"):
            task.target(silent)
    else:
        assert task.target(silent) == task.target(ROW)


def test_what_it_is_scored_by_exists(task) -> None:
    assert tuple(score.name for score in quality.scores(task)) == task.scored_by
    assert bool(task.scored_by) != task.alone


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_words_are_the_units_with_spaces_between(task, lang) -> None:
    units = task.words("ab c", lang).split(" ")
    assert units == (["ab", "c"] if task.unit(lang) == "word" else ["a", "b", "c"])


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'asrr'.*asr"):
        tasks.get("asrr")
