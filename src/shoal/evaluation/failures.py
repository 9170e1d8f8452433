"""Why it broke: in what way an answer is wrong, told from the answer alone.

Every wrong answer has at most one kind, the first of these that fits:

- `loop`: it repeats itself, or was stopped at the token limit (`shoal.evaluation.loops`);
- `empty`: it says nothing, and the reference does;
- `other script`: most of its letters are of scripts that the reference has no letter of;
- `early end`: it stops, and the last words of the reference, `RUN` at least and a quarter of all, are missing;
- `invented`: `RUN` words or more in a row come from nowhere, and it is longer than the reference;
- `unrelated`: less than a quarter of the words of the reference, of `RUN` or more, are there.

What is left is made of single errors. Words are those that WER counts, aligned as there.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, get_args

import kaldialign
import numpy as np
from scipy.special import ndtri

from shoal.evaluation.loops import loops
from shoal.schema import Estimate, Failure, FailureShare
from shoal.statistics.arrays import Bools, Ints

if TYPE_CHECKING:
    from shoal.evaluation.output import Output
    from shoal.evaluation.scores.answers import Answers
    from shoal.evaluation.significance import PairedBootstrap

RUN = 3
"""Words in a row that are no slip any more."""
PART = 0.25
KINDS: tuple[Failure, ...] = get_args(Failure)
NONE, LOOP = -1, KINDS.index("loop")
SHOWN = 2
"""Clips of a kind that are named."""
_GAP = "\0"


def failures_of(answers: Answers, outputs: Sequence[Output], *, only_loops: bool = False) -> Iterator[int]:
    """For each answer the place of its kind in `KINDS`, or `NONE`; aligned only if more than loops is asked for."""
    if only_loops:
        yield from (LOOP if loops(output) else NONE for output in outputs)
        return
    for reference, hypothesis, output in zip(*answers.words, outputs, strict=True):
        kind = failure_of(reference.split(), hypothesis.split(), looping=loops(output))
        yield NONE if kind is None else KINDS.index(kind)


def failure_of(reference: Sequence[str], answer: Sequence[str], *, looping: bool = False) -> Failure | None:
    """In what way an answer (words) is wrong; None where it is not, or only in single words."""
    if looping:
        return "loop"
    if not reference or reference == answer:
        return None
    if not answer:
        return "empty"
    if _foreign(reference, answer):
        return "other script"
    pairs = kaldialign.align(list(reference), list(answer), _GAP)
    missing, added = (_runs([pair[side] == _GAP for pair in pairs]) for side in (1, 0))
    if missing and missing[-1][1] == len(pairs) and _length(missing[-1]) >= max(RUN, PART * len(reference)):
        return "early end"
    if len(answer) > len(reference) and any(_length(run) >= RUN for run in added):
        return "invented"
    hits = sum(one == other for one, other in pairs)
    return "unrelated" if len(reference) >= RUN and hits < PART * len(reference) else None


def _runs(marks: Sequence[bool]) -> list[tuple[int, int]]:
    """Where `marks` are true in a row: [start, stop)."""
    edges = np.flatnonzero(np.diff(np.array([False, *marks, False], dtype=np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _length(run: tuple[int, int]) -> int:
    return run[1] - run[0]


def _foreign(reference: Sequence[str], answer: Sequence[str]) -> bool:
    """Whether most letters of the answer are of scripts that the reference has no letter of."""
    known = {script(letter) for word in reference for letter in word if letter.isalpha()}
    letters = [script(letter) for word in answer for letter in word if letter.isalpha()]
    return bool(known and letters) and 2 * sum(each not in known for each in letters) > len(letters)


@cache
def script(letter: str) -> str:
    """The script of a letter by its Unicode name, such as LATIN; Japanese is written in several, which count as one."""
    name = unicodedata.name(letter, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "CJK") else name


def failure_shares(kinds: Ints, ids: Sequence[str], bootstrap: PairedBootstrap) -> dict[Failure, FailureShare]:
    """How often each kind occurs among U clips, the commonest first; without those that do not.

    Args:
        kinds: (U,) from `failures_of`.
        ids: of the clips.
        bootstrap: over the clips; says how alike those of a speaker are.
    """
    shares: dict[Failure, FailureShare] = {}
    for place in np.argsort(-np.bincount(kinds[kinds >= 0], minlength=len(KINDS)), kind="stable"):
        clips = np.flatnonzero(kinds == place)
        if len(clips):
            first = [ids[clip] for clip in clips[:SHOWN]]
            shares[KINDS[place]] = FailureShare(clips=len(clips), share=_share(kinds == place, bootstrap), first=first)
    return shares


def _share(marked: Bools, bootstrap: PairedBootstrap) -> Estimate:
    """A share of clips with Wilson's interval (1927): few clips fail, so that a bootstrap knows little of them.

    It is for as many independent clips as the clips are worth: their number over the design effect (Korn & Graubard
    1998).
    """
    counted = np.stack([marked, np.ones(len(marked), bool)], axis=1).astype(np.int64)
    effect = bootstrap.design_effect(bootstrap.rates(lambda sums: sums[..., 0] / sums[..., 1], counted))
    share, worth = float(marked.mean()), len(marked) / max(1.0, effect or 1.0)
    low, high = wilson(share, worth, bootstrap.level)
    return Estimate(value=share, low=low, high=high, level=bootstrap.level, caution=bootstrap.caution)


def wilson(share: float, trials: float, level: float) -> tuple[float, float]:
    """Wilson's score interval of a share of so many trials."""
    z = float(ndtri((1 + level) / 2))
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)
