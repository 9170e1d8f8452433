"""Which clips each step sees: drawn before the first, from the seed alone, so that step k is the same in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.errors import ManifestError

Ints = npt.NDArray[np.int64]

WINDOW = 32
"""Steps whose clips are drawn together and sorted by length, so that a step holds clips of like length."""


@dataclass(frozen=True)
class SampledClips:
    """The clips of every step."""

    examples: Ints
    """(steps, clips): indices of examples; ascending by length within a step."""
    variants: Ints
    """(steps, clips): which of an example's variants."""

    def share(self, step: int, rank: int, world: int) -> tuple[Ints, Ints]:
        """Examples and variants that process `rank` of `world` takes in `step`: every `world`-th."""
        return self.examples[step, rank::world], self.variants[step, rank::world]


def sample_clips(
    sources: Ints,
    lengths: Ints,
    *,
    weights: Sequence[float | None],
    steps: int,
    clips: int,
    variants: int = 1,
    seed: int = 0,
) -> SampledClips:
    """Draw the clips of all steps.

    Within a source every clip comes once before any comes again. Between sources each draw is independent, by weight.

    Args:
        sources: (E,) which source each example is of, 0 …
        lengths: (E,) positions of each example.
        weights: of the sources, relative; None is a source's number of examples. (A weight of 1 beside None therefore
            means as much as one clip.)
        steps: of the run.
        clips: of a step.
        variants: how many there are of each example.
        seed: of all draws.

    Raises:
        ManifestError: a source has no example.
    """
    pools = [np.flatnonzero(sources == source) for source in range(len(weights))]
    if empty := [number for number, pool in enumerate(pools) if not len(pool)]:
        raise ManifestError(
            "no usable clip", where=f"source {empty[0] + 1} of train", fix="check its data, where and task"
        )
    shares = np.array(
        [len(pool) if weight is None else weight for pool, weight in zip(pools, weights, strict=True)], float
    )
    total = steps * clips
    chosen = np.random.default_rng([seed, 0]).choice(len(pools), size=total, p=shares / shares.sum())
    examples = np.empty(total, np.int64)
    for source, pool in enumerate(pools):
        draws = np.flatnonzero(chosen == source)
        examples[draws] = _stream(pool, len(draws), np.random.default_rng([seed, 1, source]))
    return _bucketed(examples, lengths, steps, clips, variants, np.random.default_rng([seed, 2]))


def _stream(pool: Ints, count: int, random: np.random.Generator) -> Ints:
    """`count` draws from `pool`, a fresh permutation at a time."""
    rounds = -(-count // len(pool))
    return np.concatenate([random.permutation(pool) for _ in range(rounds)] or [pool[:0]])[:count]


def _bucketed(
    examples: Ints, lengths: Ints, steps: int, clips: int, variants: int, random: np.random.Generator
) -> SampledClips:
    """Steps of like lengths: each window is sorted, cut into steps, and the steps are shuffled."""
    rows = []
    for first in range(0, steps, WINDOW):
        window = examples[first * clips : (first + WINDOW) * clips]
        # By length, and clips of one length by number: a sort that leaves ties open would differ between machines.
        ordered = window[np.lexsort((window, lengths[window]))].reshape(-1, clips)
        rows.append(ordered[random.permutation(len(ordered))])
    return SampledClips(np.concatenate(rows), random.integers(0, variants, (steps, clips)))
