"""Scores of how likely the right answer is, teacher-forced."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import Score, ratio
from shoal.statistics import Floats


class LossScore(Score):
    """Of the summed cross-entropy, in nats, and what it is spread over."""

    higher_is_better = False
    fraction = False

    def statistics(self, answers: Answers) -> Floats:
        """(U, 2): nats, what `size` counts; zeros where no loss was taken."""
        losses = answers.losses or [None] * len(answers)
        rows = [
            # Outputs of old may have a loss of no token: its text adds neither nats nor bytes.
            (loss[0], float(self.size(reference, loss[1]))) if loss and loss[1] else (0.0, 0.0)
            for reference, loss in zip(answers.references, losses, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    def size(self, reference: str, tokens: int) -> int:
        """What the loss of one utterance is spread over: its tokens."""
        del reference
        return tokens

    def value(self, totals: Floats) -> Floats:
        """From nats and size."""
        return self.of_mean(ratio(totals[..., 0], totals[..., 1]))

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """Nats, and what they are spread over."""
        nats, sizes = statistics.T
        return nats, sizes.astype(np.int64), "loss"

    @abstractmethod
    def of_mean(self, nats: Floats) -> Floats:
        """The score from nats for each of what is counted."""


class Loss(LossScore):
    """Nats per token."""

    name = "loss"

    def of_mean(self, nats: Floats) -> Floats:
        """As it is."""
        return nats


class Perplexity(LossScore):
    """e to the nats per token: compares models with the same tokeniser."""

    name = "perplexity"

    def of_mean(self, nats: Floats) -> Floats:
        """Its exponential."""
        values: Floats = np.exp(nats)
        return values


class WordPerplexity(Perplexity):
    """e to the nats per word of the text (at white space): compares tokenisers too."""

    name = "word perplexity"

    def size(self, reference: str, tokens: int) -> int:
        """Words."""
        del tokens
        return len(reference.split())


class BitsPerByte(LossScore):
    """Bits per byte of the text in UTF-8 (Gao et al. 2020, The Pile, section 3.1): compares tokenisers too."""

    name = "bits per byte"

    def size(self, reference: str, tokens: int) -> int:
        """Bytes."""
        del tokens
        return len(reference.encode())

    def of_mean(self, nats: Floats) -> Floats:
        """Nats over ln 2."""
        return nats / math.log(2)


SCORES = (Loss(), Perplexity(), WordPerplexity(), BitsPerByte())
