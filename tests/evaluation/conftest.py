"""The tiny SpeechLLM and the clips that most tests of evaluation take."""

from __future__ import annotations

import pytest

from tiny_speech import dataset, loaded


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "clips")
