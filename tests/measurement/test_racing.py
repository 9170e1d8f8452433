"""A race drops what is surely worse, keeps the winner, and never keeps what has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from full_run import examples
from shoal.measurement.racing import FIRST_ROUND, Race, rounds_of


@given(st.integers(0, 5000))
def test_rounds_take_every_clip_once_and_grow(clips: int) -> None:
    sizes = rounds_of(clips)
    assert sum(sizes) == clips
    assert all(size > 0 for size in sizes)
    assert sizes[:-1] == sorted(sizes[:-1])
    assert clips < FIRST_ROUND or sizes[0] == FIRST_ROUND


def run(values: np.ndarray, counts: np.ndarray) -> tuple[Race, int]:
    """All rounds; the race and how many values it looked at."""
    sizes = rounds_of(len(values))
    race, seen, looked = Race(values.shape[1], len(sizes)), 0, 0
    for size in sizes:
        part = slice(seen, seen + size)
        looked += size * len(race.alive)
        race.add(values[part][:, race.alive], counts[part])
        seen += size
    return race, looked


def clips(generator: np.random.Generator, means: list[float], number: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Sums over 5 to 30 tokens with clip-to-clip noise that candidates share, and noise of their own."""
    counts = generator.integers(5, 31, size=number)
    shared = generator.normal(0, 0.5, (number, 1))
    own = generator.normal(0, 0.3, (number, len(means)))
    return counts[:, None] * (np.array(means) + shared + own), counts


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_winner_over_all_clips_stays_in_and_the_hopeless_leave_early(seed: int) -> None:
    means = [0.1, 0.12, *np.linspace(0.8, 5, 18)]
    values, counts = clips(np.random.default_rng(seed), means)
    race, looked = run(values, counts)
    assert int(values.sum(0).argmin()) in race.alive
    assert set(race.alive) <= {0, 1}
    assert looked < values.size / 3


def test_the_best_of_all_is_rarely_dropped_however_close_they_are() -> None:
    """Over many races among equals, the one that is best on all clips is lost in fewer than the risk."""
    lost = 0
    for seed in range(200):
        values, counts = clips(np.random.default_rng(seed), [0.0] * 10)
        race, _ = run(values, counts)
        lost += int(values.sum(0).argmin()) not in race.alive
    assert lost <= 0.05 * 200


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_out_at_once(bad: float) -> None:
    values, counts = clips(np.random.default_rng(0), [1.0, 0.0, 2.0], number=8)
    values[3, 1] = bad
    race = Race(3, 1)
    assert 1 in race.add(values, counts)
    assert 0 in race.alive


def test_the_bound_is_the_t_bound_of_the_linearised_ratio() -> None:
    """An independent computation, in loops, of whether one candidate is out after one round."""
    from scipy.stats import t

    values, counts = clips(np.random.default_rng(5), [0.0, 0.25], number=20)
    differences = [float(row[1] - row[0]) for row in values]
    total = float(sum(counts))
    ratio = sum(differences) / total
    squares = sum((d - ratio * c) ** 2 for d, c in zip(differences, counts, strict=True))
    error = (20 / 19 * squares) ** 0.5 / total
    probability = t.cdf(ratio / error, 19)
    for risk, out in ((1 - probability - 1e-6, []), (1 - probability + 1e-6, [1])):
        assert Race(2, 1, risk=risk).add(values, counts) == out
