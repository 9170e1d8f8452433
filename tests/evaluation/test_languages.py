"""Text as it is compared in languages that are easily compared wrongly."""

from __future__ import annotations

import jiwer
import kaldialign
import pytest
from whisper_normalizer.basic import BasicTextNormalizer

from stored_outputs import by_id, output, summary

HINDI = "हिन्दुस्तान की राजधानी दिल्ली", "हिन्दुस्तान ती राजधानी बिल्ली"
"""Two of four words are wrong."""


def test_hindi_is_not_scored_by_its_bare_consonants():
    published = BasicTextNormalizer()
    trap = jiwer.wer(*(" ".join(published(text).split()) for text in HINDI))
    assert trap == pytest.approx(2 / 13)
    assert summary(by_id([output(0, *HINDI, lang="hi")])).systems[0].measures["WER"].value.value == 0.5


@pytest.mark.parametrize(
    ("lang", "wanted", "said", "errors", "length"),
    [
        ("zh", "今天天气很好。", "今天天汽好", 2, 6),
        ("zh-TW", "今天,天氣很好", "今天天氣很好", 0, 6),
        ("yue", "你食咗飯未呀？", "你食左飯未呀", 1, 6),
        ("ja", "今日は、いい天気ですね。", "今日はいい天気です", 1, 10),
        ("th", "สวัสดี ครับ", "สวัสดีครับ", 0, 10),
        ("th", "น้ำ", "นำ", 1, 4),
    ],
)
def test_scripts_without_spaces_have_characters_for_words(lang, wanted, said, errors, length):
    system = summary(by_id([output(0, wanted, said, lang=lang)])).systems[0]
    assert system.measures["WER"].value.value == pytest.approx(errors / length)
    # No space is written there, so a comma that one system writes makes no error of characters either.
    assert system.measures["CER"].value.value == system.measures["WER"].value.value
    assert system.measures["compound WER"].value.value == system.measures["WER"].value.value


def test_every_clip_is_compared_in_its_own_language():
    rows = [
        output(0, "It's 5 o'clock", "it is five o'clock", lang="en"),
        output(1, "今天天气", "今天气", lang="zh"),
        output(2, "à la carte", "a la carte", lang="fr"),
    ]
    found = summary(by_id(rows))
    assert found.systems[0].measures["WER"].edits.deletions == 1
    assert found.systems[0].measures["WER"].edits.substitutions == 1
    assert found.scorer.endswith("(characters as words: zh)")
    assert len(found.normaliser.split(", ")) == 2


def slow_edits(wanted, said):
    """Fewest edits where runs of words of either side may join to one word of the other, by plain recursion."""
    if not wanted or not said:
        return len(wanted) + len(said)
    ways = [
        slow_edits(wanted[1:], said[1:]) + (wanted[0] != said[0]),
        slow_edits(wanted[1:], said) + 1,
        slow_edits(wanted, said[1:]) + 1,
    ]
    for size in range(2, 1 + max(len(wanted), len(said))):
        if "".join(wanted[:size]) == said[0]:
            ways.append(slow_edits(wanted[size:], said[1:]))
        if "".join(said[:size]) == wanted[0]:
            ways.append(slow_edits(wanted[1:], said[size:]))
    return min(ways)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("the white paper is here", "the whitepaper is here"),
        ("a whitepaper", "a white paper"),
        ("life time achievement", "lifetime a chievement"),
        ("alles in ordnung", "all es inordnung so"),
        ("ab c", "a bc"),
        ("", "white paper"),
    ],
)
def test_compounds_are_merged_on_either_side_and_the_length_stays(wanted, said):
    rows = by_id([output(0, wanted, said, lang="de"), output(1, "eins zwei", "eins zwei", lang="de")])
    system = summary(rows).systems[0]
    length = len(wanted.split()) + 2
    if not wanted:  # what is said there counts in no error rate
        said = ""
    assert system.measures["compound WER"].value.value == pytest.approx(
        slow_edits(wanted.split(), said.split()) / length
    )
    assert system.measures["WER"].value.value == pytest.approx(
        kaldialign.edit_distance(wanted.split(), said.split())["total"] / length
    )
