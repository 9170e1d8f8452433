"""The best measured block on clips that it was not chosen on: against loops, and without the winner's luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.measurement.importance import ImportanceSums
from shoal.measurement.summary import summarise_importance
from shoal.schema import BestBlock
from shoal.statistics import halves_of, make_resampler
from synthetic_audits import random_importance

NAMES = [f"u{place}" for place in range(12)]
SPEAKERS = [f"s{place // 2}" for place in range(12)]


def best(sums: ImportanceSums, *, depth: int = 6, replicates: int = 50) -> list[BestBlock]:
    return summarise_importance(sums, depth, make_resampler(SPEAKERS, replicates=replicates, seed=1), 0.9).best


def slow_held_out(sums: ImportanceSums, starts: list[int], n: int) -> float:
    """Chosen on half of the speakers, measured on the others, mean over halves."""
    halves = halves_of(make_resampler(SPEAKERS, replicates=0, seed=1))
    columns = [sums.candidates.index(tuple(range(start, start + n))) for start in starts]
    measured = []
    for row in halves.weights.tolist():
        here = [u for u in range(12) if row[halves.groups[u]] and sums.counts[u]]
        there = [u for u in range(12) if not row[halves.groups[u]] and sums.counts[u]]
        chosen = min(columns, key=lambda c: sum(sums.values[u, c] for u in here))
        measured.append(sum(sums.values[u, chosen] for u in there) / sum(sums.counts[u] for u in there))
    return sum(measured) / len(measured)


@pytest.mark.parametrize("n", [1, 2])
def test_it_is_what_it_is_defined_to_be(n):
    sums = random_importance(3, NAMES)
    found = best(sums)[n - 1]
    means = sums.means().tolist()
    known = {layers[0]: mean for layers, mean in zip(sums.candidates, means, strict=True) if len(layers) == n}
    assert (found.n, found.layer) == (n, min(known, key=known.__getitem__))
    assert found.distance.value == pytest.approx(min(known.values()))
    assert found.held_out.value == pytest.approx(slow_held_out(sums, sorted(known), n))
    assert found.held_out.low < found.held_out.value < found.held_out.high
    assert found.layer in found.confidence_set
    assert 0 < found.selection_frequency <= 1


def test_what_was_dropped_refused_or_ends_the_stack_is_not_the_best():
    sums = random_importance(3, NAMES, sizes=(1,), candidates=tuple((layer,) for layer in range(6)))
    sums.values[:, 5] = -99
    sums.values[4:, 0] = np.nan
    found = best(replace(sums, refused={1: "not finite"}))
    assert len(found) == 1
    assert not {0, 1, 5} & {found[0].layer, *found[0].confidence_set}
    assert best(replace(sums, part="attention")) == []


def test_one_cluster_has_a_best_block_without_more():
    sums = random_importance(3, NAMES[:1], sizes=(1,))
    resampler = make_resampler([None], replicates=20, seed=0)
    (found,) = summarise_importance(sums, 6, resampler, 0.95).best
    assert (found.held_out, found.selection_frequency, found.confidence_set) == (None, None, [])


def test_the_winners_luck_is_taken_out():
    """Of 20 equal blocks that each lose 1, the best seems to lose less on the clips that it was chosen on."""
    apparent, corrected, held = [], [], []
    for seed in range(100):
        sums = random_importance(seed, NAMES, depth=21, sizes=(1,))
        noise = np.random.default_rng(seed).normal(0, 0.5, sums.values.shape)
        (found,) = best(replace(sums, values=sums.counts[:, None] * (1 + noise)), depth=21, replicates=20)
        apparent.append(found.distance.value)
        corrected.append(found.held_out.value)
        held.append(found.held_out.low <= 1 <= found.held_out.high)
    assert np.mean(apparent) < 0.8
    assert np.mean(corrected) == pytest.approx(1, abs=0.03)
    assert np.mean(held) >= 0.88  # 90 % intervals
