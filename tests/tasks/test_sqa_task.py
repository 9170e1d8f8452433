"""Questions: the accepted answers, the choices, and SQuAD's normaliser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal import tasks
from shoal.data import Row
from shoal.errors import ManifestError

SQA = tasks.get("sqa")


def row(**fields: Any) -> Row:
    return Row("r", Path("a.wav"), 1.0, fields=fields, manifest="m.jsonl", line=3)


@pytest.mark.parametrize(
    ("fields", "target", "accepted"),
    [
        ({"answer": " the  sea "}, "the sea", ["the sea"]),
        ({"answers": ["the sea", "an ocean", "the sea"]}, "the sea", ["the sea", "an ocean"]),
        ({"answer": "water", "answers": ["the sea"]}, "water", ["water", "the sea"]),
    ],
)
def test_one_answer_or_several(fields, target, accepted) -> None:
    assert SQA.target(row(**fields)) == target
    assert SQA.accepted(target, fields) == accepted
    assert SQA.choices(row(**fields)) == []


def test_choices_are_the_row_s() -> None:
    asked = row(answer="b", choices=["a", "b", "c"])
    assert SQA.choices(asked) == ["a", "b", "c"]
    assert SQA.target(asked) == "b"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "no answer; add the field answer"),
        ({"answer": 7}, "answer is not text"),
        ({"answers": "yes"}, "answers is not a list of texts"),
        ({"answers": ["yes", " "]}, "answers is not a list of texts"),
        ({"answer": "d", "choices": ["a", "b"]}, "the answer 'd' is not among the choices"),
        ({"answer": "a", "choices": ["a"]}, "a single one in choices"),
    ],
)
def test_a_row_that_makes_no_question_is_refused_in_one_line(fields, said) -> None:
    with pytest.raises(ManifestError, match=rf"^m\.jsonl:3: {said}"):
        SQA.target(row(**fields))


@pytest.mark.parametrize(
    ("lang", "text", "same"),
    [
        ("en", "The  Cat, an old-timer!", "cat oldtimer"),
        (None, "A theatre", "theatre"),
        ("de", "Die Katze, „an“ Land!", "die katze an land"),
    ],
)
def test_case_punctuation_and_english_articles_do_not_count(lang, text, same) -> None:
    assert SQA.normaliser(lang)(text) == same
