"""Recognition: target, normaliser by language, unit."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pytest
from whisper_normalizer.basic import BasicTextNormalizer

from shoal import tasks
from shoal.data import Row

ASR = tasks.get("asr")


def word_errors(normalise, reference: str, hypothesis: str) -> float:
    return jiwer.wer(normalise(reference), normalise(hypothesis))


def test_the_target_is_the_transcript_in_one_line() -> None:
    row = Row(id="r", audio=Path("a.wav"), duration=1.0, text=" Press  one,\nthen hold. ")
    assert ASR.target(row) == "Press one, then hold."


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("I won't pay twenty one dollars.", "i will not pay $21"),
        ("Mr. Smith's colour television", "mister smith's color television"),
        ("Hello, world!", "hello world"),
    ],
)
def test_english_spellings_and_numbers_are_the_same_words(reference, hypothesis) -> None:
    assert word_errors(ASR.normaliser("en-US"), reference, hypothesis) == 0


def test_two_of_four_hindi_words_wrong_are_fifty_per_cent() -> None:
    # each wrong word differs by a vowel sign only: की/कि, दिन/दीन
    reference, hypothesis = "आज की दिन है", "आज कि दीन है"
    assert word_errors(ASR.normaliser("hi"), reference, hypothesis) == 0.5
    as_published = BasicTextNormalizer()
    assert word_errors(as_published, reference, hypothesis) <= 0.15


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("hi", "हिन्दी"),
        ("ta", "தமிழ்"),
        ("th", "ที่นี่"),
        ("ar", "مُدَرِّس"),
        ("vi", "tiếng việt"),
        ("de", "größe"),
        (None, "naïve"),
    ],
)
def test_marks_survive_outside_english(lang, text) -> None:
    assert ASR.normaliser(lang)(text) == text


@pytest.mark.parametrize("lang", ["es", "hi", None])
def test_case_punctuation_and_brackets_go(lang) -> None:
    assert ASR.normaliser(lang)("  ¡Hola, [ruido] Señor!\n") == "hola señor"


def test_composed_and_decomposed_letters_are_the_same() -> None:
    normalise = ASR.normaliser("fr")
    assert normalise("e\u0301te\u0301") == normalise("été")


@pytest.mark.parametrize("lang", ["zh", "zh-CN", "cmn", "ja_JP", "th", "lo", "km", "my", "yue", "zh-yue", "Japanese"])
def test_scripts_without_spaces_are_counted_in_characters(lang) -> None:
    assert ASR.unit(lang) == "char"


@pytest.mark.parametrize("lang", ["en", "de-CH", "ko", "hi", "", None])
def test_other_languages_are_counted_in_words(lang) -> None:
    assert ASR.unit(lang) == "word"


@pytest.mark.parametrize("lang", ["en", "EN", "en-GB", "en_us", "eng", "English"])
def test_english_is_recognised_however_it_is_written(lang) -> None:
    assert ASR.normaliser(lang).name == "whisper-english"


def test_normalisers_are_made_once() -> None:
    assert ASR.normaliser("en") is ASR.normaliser("en-US")
    assert ASR.normaliser("de") is ASR.normaliser(None)
