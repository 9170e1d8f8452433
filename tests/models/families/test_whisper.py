"""What Whisper has beside its layers: heads that align words with time, prompts made of tokens."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.models import families
from shoal.models.families.audio_llm import Question
from shoal.pruning.in_memory import prune_in_place, pruned
from tiny_audio.whisper import BUILDS

TINY = BUILDS["WhisperForConditionalGeneration"]
SECOND = np.zeros(16_000, dtype=np.float32)


@pytest.fixture
def model():
    return TINY.build(6)


def prompts(model, instruction="Transcribe the speech.", clips=2, languages=()):
    noise = np.random.default_rng(0).normal(0, 0.1, (clips, 16_000)).astype(np.float32)
    family = families.find(model)
    return family.request(model, TINY.processor(), list(noise), Question(instruction, languages))[
        "decoder_input_ids"
    ].tolist()


def test_alignment_heads_follow_their_layers(model):
    prune_in_place(model, [1, 3])
    assert model.generation_config.alignment_heads == [[1, 1], [3, 0]]


def test_without_an_alignment_head_left_there_is_none(model):
    with pruned(model, [1, 2, 5]):
        assert model.generation_config.alignment_heads is None
    assert model.generation_config.alignment_heads == [[1, 0], [2, 1], [5, 0]]


@pytest.mark.parametrize(
    ("settings", "token"),
    [
        ({"language": "hindi"}, 3),
        ({"language": "en"}, 2),
        ({"language": "<|hi|>"}, 3),
        ({"forced_decoder_ids": [[1, 2], [2, 5]]}, 2),
    ],
)
def test_the_checkpoint_may_fix_the_language(model, settings, token):
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert prompts(model) == [[1, token, 5, 8]] * 2


def test_else_the_language_is_the_one_that_is_detected(model):
    for start, language, task, plain in prompts(model, clips=3):
        assert (start, task, plain) == (1, 5, 8)
        assert language in (2, 3)


def test_a_row_may_name_its_language(model):
    assert set(families.find(model).languages(model, transcribe=True)) == {"en", "hi"}
    assert prompts(model, languages=("hi", "en")) == [[1, 3, 5, 8], [1, 2, 5, 8]]
    model.generation_config.language = "english"
    assert prompts(model, languages=("hi", None)) == [[1, 3, 5, 8], [1, 2, 5, 8]]


def test_nothing_is_detected_where_every_row_names_its_language(model, monkeypatch):
    monkeypatch.setattr(model, "detect_language", None)
    assert [prompt[1] for prompt in prompts(model, languages=("en", "hi"))] == [2, 3]


def test_a_model_of_one_language_takes_none(model):
    del model.generation_config.lang_to_id
    assert not families.find(model).languages(model, transcribe=True)


def test_an_instruction_to_translate_is_the_task_token(model):
    assert [prompt[2] for prompt in prompts(model, "Translate the speech to English.")] == [4, 4]


def test_a_model_of_one_language_has_no_language_token(model):
    del model.generation_config.lang_to_id
    assert prompts(model) == [[1, 8]] * 2
