"""Emotion: the target, and when two labels are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal import tasks
from shoal.data import Row
from shoal.errors import ManifestError

SER = tasks.get("ser")


def test_the_target_is_the_emotion_and_needs_no_transcript() -> None:
    assert SER.target(Row("r", Path("a.wav"), 1.0, fields={"emotion": " Happy "})) == "Happy"


def test_a_number_is_no_emotion() -> None:
    with pytest.raises(ManifestError, match="emotion is not text"):
        SER.target(Row("r", Path("a.wav"), 1.0, fields={"emotion": 3}))


@pytest.mark.parametrize("answer", ["happy", "Happy.", ' "HAPPY"! ', "happy\n"])
def test_case_and_punctuation_do_not_count(answer) -> None:
    assert SER.normaliser("en")(answer) == "happy"


def test_a_sentence_is_not_the_label() -> None:
    assert SER.normaliser(None)("The speaker is happy.") == "the speaker is happy"


def rows(*labels: str) -> list[Row]:
    return [Row(str(n), Path("a.wav"), 1.0, fields={"emotion": label}) for n, label in enumerate(labels)]


def test_the_labels_are_those_of_the_data_each_as_it_is_written_most_often() -> None:
    task = SER.on(rows("sad", "Happy", "happy", "Happy", "sad."))
    assert task.choices(rows("sad")[0]) == ["Happy", "sad"]
    assert SER.choices(rows("sad")[0]) == []
    assert task.decides["labels"] == ["Happy", "sad"]


def test_the_order_of_the_rows_decides_nothing() -> None:
    labels = ["sad", "Sad", "happy", "HAPPY", "calm"]
    assert SER.on(rows(*labels)).settings == SER.on(rows(*reversed(labels))).settings


def test_one_label_leaves_nothing_to_choose_from() -> None:
    assert SER.on(rows("sad", "Sad")) is SER
