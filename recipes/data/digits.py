"""Spoken digit sequences: a task small enough to be learned on a CPU, and learned well."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from common import Clip, generator, make
from voices import HELD_OUT, Utterance, Voice, espeak, flite, flite_voice, speak, training_voice

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TRAIN_LENGTHS, _TRAIN_WEIGHTS = range(1, 7), (1, 2, 3, 3, 3, 3)
_TEST_LENGTHS = range(3, 7)
"""Ones and pairs are left to training: there are too few of them to keep any back."""
NOTICE = """
Synthetic speech, made by Shoal's recipes/data/make.py with flite (BSD-like licence) and espeak-ng (GPL-3.0-or-later).
What the two programs say is not covered by their licences. Free to use for anything.
"""

Spoken = tuple[str, str, Voice]
"""Split, text, voice."""


def draw_sequence(rng: random.Random, lengths: range, weights: tuple[int, ...] | None = None) -> str:
    """Digits, as figures."""
    length = rng.choices(lengths, weights)[0]
    return "".join(rng.choices("0123456789", k=length))


def in_words(digits: str, *, oh: bool) -> str:
    """`305` → `three zero five`, or `three oh five`."""
    return " ".join("oh" if oh and digit == "0" else _WORDS[int(digit)] for digit in digits)


def figures(text: str) -> str:
    """`three oh five` → `305`."""
    return "".join("0" if word == "oh" else str(_WORDS.index(word)) for word in text.split())


def plan(clips: int, test: int, test_voice: int, seed: int) -> list[Spoken]:
    """Who says what; with more clips, what fewer gave is still there.

    Args:
        clips: of the training split.
        test: sequences that no training clip says, by voices of the training split.
        test_voice: sequences that neither says, by a voice that training never hears.
        seed: decides everything.
    """
    rng = generator("digits", "test", seed)
    kept_back: dict[str, None] = {}
    while len(kept_back) < test + test_voice:
        kept_back.setdefault(draw_sequence(rng, _TEST_LENGTHS))
    unseen = list(kept_back)
    rows = list(_training(clips, seed, frozenset(unseen)))
    rows += [("test", in_words(said, oh=rng.random() < 0.5), training_voice(rng)) for said in unseen[:test]]
    rows += [
        ("test-voice", in_words(said, oh=rng.random() < 0.5), flite_voice(rng, HELD_OUT)) for said in unseen[test:]
    ]
    return rows


def _training(clips: int, seed: int, unseen: frozenset[str]) -> Iterator[Spoken]:
    rng = generator("digits", "train", seed)
    seen: set[tuple[str, Voice]] = set()
    while len(seen) < clips:
        digits = draw_sequence(rng, _TRAIN_LENGTHS, _TRAIN_WEIGHTS)
        spoken = (in_words(digits, oh=rng.random() < 0.5), training_voice(rng))
        if digits not in unseen and spoken not in seen:
            seen.add(spoken)
            yield "train", *spoken


def run(out: Path, clips: int, test: int, test_voice: int, seed: int, workers: int) -> None:
    """Make the data set."""
    programs = {"flite": flite(), "espeak": espeak()}
    made = []
    for split, text, voice in plan(clips, test, test_voice, seed):
        said = Utterance(text, voice, programs[voice.engine])
        fields = {"lang": "en", "speaker": voice.speaker, "split": split, "task": "asr", "text": text}
        made.append(Clip(f"audio/{said.name}.flac", said, fields))
    make(out, made, speak, workers=workers, notice=NOTICE)
