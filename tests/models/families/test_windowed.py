"""Audio Flamingo, Music Flamingo and GLM-ASR: clips in windows, answers in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.models import families
from shoal.models.families.audio_flamingo import FAMILY
from shoal.models.families.audio_llm import Question
from tiny_audio import BUILDS

CLASSES = (
    "AudioFlamingo3ForConditionalGeneration",
    "MusicFlamingoForConditionalGeneration",
    "GlmAsrForConditionalGeneration",
)


@pytest.mark.parametrize("name", CLASSES)
def test_a_clip_has_as_many_windows_as_it_needs(name):
    build = BUILDS[name]
    model, processor = build.build(2), build.processor()
    clips = [np.zeros(int(seconds * 16_000), dtype=np.float32) for seconds in (0.5, 4.3)]
    inputs = families.find(model).request(model, processor, clips, Question("Transcribe."))
    assert inputs["input_features"].shape == (1 + 3, 80, 200)
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('The spoken content of the audio is "it is late".', "it is late"),
        ("The content of the input audio is 'it's late'", "it's late"),
        ("It is late.", "It is late."),
        (
            'He said: The transcription of the audio is "x".',
            'He said: The transcription of the audio is "x".',
        ),
    ],
)
def test_a_transcript_is_taken_out_of_its_sentence(text, answer):
    assert FAMILY.answer(None, text) == answer
