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
