"""The language of a row reaches the model, whichever way the row is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_speech
from shoal import tasks
from shoal.data.clip import Clip, Row
from shoal.data.dataset import Dataset
from shoal.decoder.prepare import prepare
from shoal.errors import AudioError, ModelError
from shoal.evaluation.decode_systems import header
from shoal.evaluation.generated_speech import with_recogniser
from shoal.evaluation.settings import TokenLimit
from shoal.models.languages import code_among
from shoal.models.loading import load_model
from shoal.training.examples import TrainingExample
from shoal.training.processor_batches import ProcessorBatches
from tiny_audio import BUILDS

ASR = tasks.get("asr")
LANGUAGES = ("hi", "en", None, "English")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = BUILDS["WhisperForConditionalGeneration"].write(tmp_path_factory.mktemp("whisper") / "model")
    return load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)


def clips(*languages):
    noise = np.random.default_rng(0).normal(0, 0.1, (len(languages), 16_000)).astype(np.float32)
    rows = [
        Row(f"clip-{number}", Path(f"{number}.wav"), 1.0, text="yes", lang=lang, manifest="rows.jsonl", line=number + 1)
        for number, lang in enumerate(languages)
    ]
    return [Clip(row, samples) for row, samples in zip(rows, noise, strict=True)]


def data(*languages):
    return Dataset(["rows.jsonl"], [clip.row for clip in clips(*languages)], max_bad=0, examined=len(languages))


@pytest.mark.parametrize(
    ("lang", "code"),
    [("de", "de"), ("de-CH", "de"), ("de_de", "de"), ("German", "de"), ("cmn", "zh"), ("nb_no", "no"), ("xx", None)],
)
def test_a_language_is_known_by_any_of_its_usual_names(lang, code):
    assert code_among(lang, ["de", "no", "zh"]) == code


def test_rows_of_several_languages_share_a_batch(whisper):
    batch = prepare(whisper, clips(*LANGUAGES), ASR)
    tokens = batch.inputs["decoder_input_ids"]
    assert tokens[[0, 1, 3], 1].tolist() == [3, 2, 2]
    alone = [prepare(whisper, [clip], ASR).inputs["decoder_input_ids"] for clip in clips(*LANGUAGES)]
    assert torch.equal(tokens, torch.cat(alone))


def test_what_is_measured_is_told_the_language_too(whisper):
    batch = prepare(whisper, clips("hi"), ASR, response=True, padding_side="right")
    assert batch.token_ids[0, :4].tolist() == [1, 3, 5, 8]


def test_the_language_to_translate_into_is_the_task_s(tmp_path):
    folder = BUILDS["CanaryForConditionalGeneration"].write(tmp_path / "model")
    canary = load_model(str(folder), device="cpu", dtype="float32", trust_remote_code=False)
    tokens = prepare(canary, clips("de"), tasks.get("ast")).inputs["decoder_input_ids"]
    assert canary.tokenizer.decode(tokens[0, 2:4]) == "<|de|><|en|>"


def test_a_language_that_the_model_does_not_know_is_refused_before_anything_is_computed(whisper):
    whisper.check_clips(data("en", None), ASR)
    with pytest.raises(ModelError, match=r"does not know the language 'tlh' of a row \(it knows 2, such as hi\)"):
        whisper.check_clips(data("en", "tlh"), ASR)


def test_the_header_of_outputs_says_that_the_model_was_told(whisper):
    named, unnamed = (
        header(whisper, data(*languages), ASR, TokenLimit()) for languages in (("hi", "en"), (None, None))
    )
    assert named["decoding"]["language"] == "each row's"
    assert named["note"]["languages"] == ["en", "hi"]
    assert "language" not in unnamed["decoding"]


def test_a_recogniser_of_generated_speech_is_told_too(whisper):
    speaker, task = tiny_speech.loaded(), with_recogniser(tasks.get("tts"), whisper)
    assert header(speaker, data("hi"), task, TokenLimit())["decoding"]["language"] == "each row's"
    with pytest.raises(ModelError, match="does not know the language 'tlh'"):
        header(speaker, data("tlh"), task, TokenLimit())


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ({"lang": "tlh"}, ModelError, "does not know the language 'tlh'"),
        ({"duration": 2.5}, AudioError, "is 2.5 s long, and the model hears 2 s"),
    ],
)
def test_training_refuses_such_a_clip_before_the_first_step(whisper, clip, error, message):
    rows = [row.row for row in clips("en", "hi")]
    examples = [TrainingExample(row, ASR, data("en", "hi")) for row in (rows[0], replace(rows[1], **clip))]
    with pytest.raises(error, match=message):
        ProcessorBatches(whisper, examples)
