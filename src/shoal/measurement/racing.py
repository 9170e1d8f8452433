"""A race of candidates: clips come in rounds, and who is surely worse than the leader drops out.

After every round each candidate is compared with the leader on the clips that all of them have seen, clip by clip.
The difference of the corpus means is a ratio of sums, and its linearised terms x_u = d_u - d c_u (d_u the difference on
clip u, c_u its tokens, d the ratio) give its standard error; a candidate is out when the one-sided t bound of the
difference lies above 0. The level is shared out over all comparisons that can happen (Bonferroni over candidates and
rounds), so that the chance that the true winner of all clips is dropped by bad luck stays below `risk`. The scheme is
Hoeffding Races (Maron & Moore 1993) with the t interval of F-Race (Birattari et al. 2002) in place of Hoeffding's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shoal.statistics import Bools, Floats, Ints

FIRST_ROUND = 8
"""Clips before anybody may drop out: fewer say little about how clips differ."""
RISK = 0.05
"""Chance that the winner over all clips is dropped."""


def rounds_of(clips: int, first: int = FIRST_ROUND) -> list[int]:
    """Sizes of the rounds: `first`, as many again, then half as many as were seen so far, up to `clips`."""
    sizes, seen = [], 0
    while seen < clips:
        size = min(clips - seen, first if seen < 2 * first else seen // 2)
        sizes.append(size)
        seen += size
    return sizes


@dataclass
class Race:
    """Which candidates are still in it.

    Args:
        candidates: how many start, C.
        rounds: how many rounds there can be.
        risk: see `RISK`.
    """

    candidates: int
    rounds: int
    risk: float = RISK
    alive: list[int] = field(init=False)
    _values: list[Floats] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alive = list(range(self.candidates))

    def add(self, values: Floats, counts: Ints) -> list[int]:
        """A round: sums (u, candidates alive) and counts (u,) of new clips; returns who drops out.

        A value that is not finite takes its candidate out at once.
        """
        whole = np.full((len(values), self.candidates), np.nan)
        whole[:, self.alive] = values
        self._values.append(whole)
        self._counts.append(counts)
        seen, tokens = np.concatenate(self._values)[:, self.alive], np.concatenate(self._counts)
        out = self._worse(seen, tokens)
        dropped = [self.alive[index] for index in np.flatnonzero(out)]
        self.alive = [candidate for candidate in self.alive if candidate not in dropped]
        return dropped

    def _worse(self, values: Floats, counts: Ints) -> Bools:
        broken: Bools = np.logical_not(np.isfinite(values).all(0))
        if broken.all() or len(values) < 2:
            return broken
        values = np.where(broken, 0.0, values)
        means = np.where(broken, np.inf, values.sum(0) / counts.sum())
        leader = int(means.argmin())
        difference = values - values[:, [leader]]
        ratio = difference.sum(0) / counts.sum()
        terms = difference - ratio * counts[:, None]
        clips = len(values)
        error = np.sqrt(clips / (clips - 1) * (terms**2).sum(0)) / counts.sum()
        from scipy.stats import t as student

        level = self.risk / max(1, (self.candidates - 1) * self.rounds)
        bound = ratio - student.ppf(1 - level, clips - 1) * error
        worse: Bools = np.logical_or(bound > 0, broken)
        worse[leader] = False
        return worse
