"""Word-level differences between a reference and an output, for reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import kaldialign

Operation = Literal["same", "substituted", "inserted", "deleted"]

# Han and kana are written without spaces: each character stands for itself.
_TOKEN = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|[^\s぀-ヿ㐀-鿿豈-﫿]+")
_NOT_WORD = re.compile(r"[^\w]+")
_GAP = " "
"""Stands for "no word here" in the alignment; no token holds white space."""


@dataclass(frozen=True)
class Word:
    """One place of the alignment: what the reference has there, and what the output has."""

    operation: Operation
    reference: str
    output: str


def tokens(text: str) -> list[str]:
    """Words at white space; Han and kana one by one."""
    return _TOKEN.findall(text)


def align(reference: str, output: str) -> list[Word]:
    """A shortest alignment of two texts, blind to case and punctuation.

    Args:
        reference: what was said.
        output: what the system wrote.
    """
    expected, heard = tokens(reference), tokens(output)
    pairs = kaldialign.align([_key(token) for token in expected], [_key(token) for token in heard], _GAP)
    return list(_words(pairs, iter(expected), iter(heard)))


def error_count(words: list[Word]) -> int:
    """Places that differ."""
    return sum(word.operation != "same" for word in words)


def _key(token: str) -> str:
    return _NOT_WORD.sub("", token).casefold() or token


def _words(pairs: list[tuple[str, str]], expected: Iterator[str], heard: Iterator[str]) -> Iterator[Word]:
    for left, right in pairs:
        if right == _GAP:
            yield Word("deleted", next(expected), "")
        elif left == _GAP:
            yield Word("inserted", "", next(heard))
        else:
            yield Word("same" if left == right else "substituted", next(expected), next(heard))
