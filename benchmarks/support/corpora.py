"""Made-up corpora whose true scores are known: clips of about 9 words, WER 0.20, speakers that differ, loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RATE = 0.2
CONCENTRATION = 4.0
"""Of the beta distribution of the error rates of clips: the clips of a corpus differ as they do in real speech."""
CLIPS_A_SPEAKER = 10
LOOP_TIMES = 20
"""A looping clip has this many times the errors of a usual one."""


@dataclass(frozen=True)
class Case:
    """What a corpus is like."""

    name: str
    clips: int = 0
    speakers: int = 0
    """With clips each; 0: every clip is of another speaker, who is not known."""
    spread: float = 0.0
    """Standard deviation of the speakers' error rates."""
    loops: float = 0.0
    """Share of clips that loop, in each system by itself."""
    added: float = 0.0
    """What the second system's rate is higher by, apart from loops."""
    shared: float = 0.7
    """Share of clips on which the second system makes the same errors as the first."""

    @property
    def size(self) -> int:
        """Number of clips."""
        return self.speakers * CLIPS_A_SPEAKER if self.speakers else self.clips

    @property
    def clusters(self) -> int:
        """What is drawn."""
        return self.speakers or self.clips

    @property
    def rate(self) -> float:
        """The true error rate of the first system."""
        return (1 - self.loops) * RATE + self.loops * LOOP_TIMES * RATE

    @property
    def other_rate(self) -> float:
        """The true error rate of the second."""
        return (1 - self.loops) * (RATE + self.added) + self.loops * LOOP_TIMES * RATE

    @property
    def names(self) -> list[str | None]:
        """The speaker of each clip."""
        if not self.speakers:
            return [None] * self.clips
        return [f"speaker {index // CLIPS_A_SPEAKER}" for index in range(self.size)]


@dataclass(frozen=True)
class Corpus:
    """One draw: words (U,) and errors (U,) of two systems on the same clips."""

    words: Floats
    first: Floats
    second: Floats

    def statistics(self, errors: Floats) -> Floats:
        """(U, 2)."""
        return np.stack([errors, self.words], axis=1)


def draw(case: Case, generator: np.random.Generator) -> Corpus:
    """A corpus of `case`."""
    words = 1.0 + generator.poisson(8, case.size)
    rates = np.full(case.size, RATE)
    if case.speakers:
        # A beta distribution, so that the mean over speakers is the rate.
        size = RATE * (1 - RATE) / case.spread**2 - 1
        rates = np.repeat(generator.beta(RATE * size, (1 - RATE) * size, case.speakers), CLIPS_A_SPEAKER)
    difficulty = generator.beta(np.maximum(rates * CONCENTRATION, 1e-3), (1 - rates) * CONCENTRATION)
    first = generator.binomial(words.astype(int), difficulty).astype(float)
    again = generator.binomial(words.astype(int), difficulty).astype(float)
    second = np.where(generator.random(case.size) < case.shared, first, again)
    second += generator.binomial(words.astype(int), case.added)
    for errors in (first, second):
        looping = generator.random(case.size) < case.loops
        errors[looping] = LOOP_TIMES * RATE * words[looping]
    return Corpus(words, first, second)
