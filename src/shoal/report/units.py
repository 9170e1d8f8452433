"""What a measured quantity is counted in, and how to write it: rates in points, everything else as it is."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import wording
from shoal.evaluation.scores import registry
from shoal.schema import Estimate

FRACTIONS = frozenset(name for name, score in registry.BY_NAME.items() if score.fraction)
"""Scores of which 1 is a hundred per cent; all others are written as they are stored."""

TOLERANCE = 0.25
"""Relative loss that counts as affordable: for WER the stop rule of arXiv 2603.05121, kept for other scores."""


def tolerance_words(*, higher_is_better: bool, limit: float = TOLERANCE) -> str:
    """`+25 %`, or `−25 %` for a score that falls when it gets worse."""
    return f"{'−' if higher_is_better else '+'}{100 * limit:g}{wording.SPACE}%"


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        name: behind a number, such as `points of WER` or `nats a token`.
        factor: from the stored value to the written one.
    """

    name: str
    factor: float = 1.0

    def scaled(self, estimate: Estimate) -> Estimate:
        """The estimate as it is written and drawn."""
        return estimate.scaled(self.factor)

    def write(self, estimate: Estimate, *, sign: bool = False) -> str:
        """`1.8 points of WER [0.4, 3.1]`."""
        return self._write(estimate, f" {self.name}" if self.name else "", sign=sign)

    def bare(self, estimate: Estimate, *, sign: bool = False) -> str:
        """The same without the unit, for a table that names it."""
        return self._write(estimate, "", sign=sign)

    def value(self, estimate: Estimate, *, sign: bool = False) -> str:
        """The value alone, without its interval."""
        return wording.number_of(self.scaled(estimate), sign=sign)(self.factor * estimate.value)

    def _write(self, estimate: Estimate, unit: str, *, sign: bool) -> str:
        scaled = self.scaled(estimate)
        return wording.with_interval(scaled, wording.number_of(scaled, sign=sign), unit)


PLAIN = Unit("")


def unit_of(name: str) -> Unit:
    """The unit that documents call `name`: fractions are written in points, all else as it is stored."""
    return Unit(f"points of {name}", 100) if name in FRACTIONS else Unit(name)


def score_text(name: str, estimate: Estimate, *, fraction: bool | None = None) -> str:
    """A score with its interval: in percent where 1 is a hundred per cent, else as it is.

    Args:
        name: of the score.
        estimate: its value.
        fraction: whether 1 is a hundred per cent; None goes by the name.
    """
    if name in FRACTIONS if fraction is None else fraction:
        return wording.percent_estimate(estimate)
    return wording.with_interval(estimate, wording.number_of(estimate))
