"""Synthetic read speech: WordNet's example sentences and glosses, spoken by many voices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import debian
from common import Clip, generator, held_out, key, make, say, test_texts, without_leaks
from voices import Utterance, Voice, espeak, flite, piper, piper_voice, speak, training_voice

from shoal.errors import InputError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_SHARE = 0.05
_PIPER_SHARE = 0.3
_WORDS = range(3, 17)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z' ,;:?!-]*[A-Za-z'][.?!]?")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b|\b[B-HJ-Z]\b")
NOTICE = """
Synthetic speech, made by Shoal's recipes/data/make.py with flite (BSD-like licence) and espeak-ng (GPL-3.0-or-later),
whose licences do not cover what they say; voices named piper-… are Piper's (see the voice's own MODEL_CARD).
The sentences are from WordNet 3.0, Copyright 2006 by Princeton University. All rights reserved. They may be used,
copied, modified and distributed for any purpose and without fee as long as this notice goes along; they come as is,
without any warranty: https://wordnet.princeton.edu/license-and-commercial-use
"""


def parse(lines: Iterable[str]) -> Iterator[str]:
    """The quoted examples and the glosses of a `data.…` file that can be read aloud, as they come."""
    for line in lines:
        head, bar, gloss = line.partition(" | ")
        if not bar or not head[:8].isdigit():
            continue  # the licence at the top
        yield from filter(sayable, (_tidy(text) for text in re.findall(r'"([^"]*)"', gloss)))
        rest = re.sub(r'"[^"]*"?', "", gloss)
        yield from filter(sayable, (_tidy(text) for text in rest.split(";")))


def sayable(text: str) -> bool:
    """3 to 16 plain English words whose sound is sure: no figures, abbreviations or foreign letters."""
    return bool(_PLAIN.fullmatch(text)) and len(text.split()) in _WORDS and not _CAPITALS.search(text)


def _tidy(text: str) -> str:
    return " ".join(text.split()).strip(" ,;:-")


def choose(texts: Iterable[str], clips: int, seed: int, forbidden: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Split and text of the first `clips` in a random order; every text once, nothing forbidden.

    Raises:
        InputError: there are not that many.
    """
    once = {key(text): text for text in texts}
    for text in forbidden:
        once.pop(text, None)
    keys = sorted(once)
    generator("sentences", seed).shuffle(keys)
    if len(keys) < clips:
        raise InputError(f"there are {len(keys)} sentences", where=f"--clips {clips}", fix="ask for fewer")
    return [("validation" if held_out(name, _SHARE, seed) else "train", once[name]) for name in keys[:clips]]


def voice_for(text: str, seed: int, model: Path | None) -> Voice:
    """Who says it; depends on the text alone, so that more clips change nothing."""
    rng = generator("voice", seed, key(text))
    if model is not None and rng.random() < _PIPER_SHARE:
        return piper_voice(rng, model)
    return training_voice(rng)


def run(out: Path, clips: int, seed: int, exclude: Sequence[Path], model: Path | None, workers: int) -> None:
    """Make the data set; with `model`, a Piper voice says three of ten sentences."""
    folder = debian.unpacked("wordnet-base") / "usr/share/wordnet"
    texts = [text for name in FILES for text in parse((folder / name).read_text("utf-8").splitlines())]
    programs = {"flite": flite(), "espeak": espeak()} | ({"piper": piper(model)} if model else {})
    forbidden = test_texts(exclude)
    chosen = choose(texts, clips, seed, forbidden)
    say(f"{len(texts)} sentences and glosses in WordNet")
    made = []
    for split, text in chosen:
        voice = voice_for(text, seed, model)
        said = Utterance(text, voice, programs[voice.engine])
        fields = {"lang": "en", "speaker": voice.speaker, "split": split, "task": "asr", "text": text}
        made.append(Clip(f"audio/{said.name}.flac", said, fields))
    make(out, without_leaks(made, forbidden), speak, workers=workers, notice=NOTICE)
