from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ManifestError
from shoal.training.micro_batches import halved, micro_batches
from shoal.training.sampling import WINDOW, sample_clips

LENGTHS = np.arange(20, 60)
ONE_SOURCE = np.zeros(40, np.int64)


def test_every_clip_comes_once_before_any_comes_again():
    found = sample_clips(ONE_SOURCE, LENGTHS, weights=[None], steps=20, clips=4)
    counts = np.bincount(found.examples.ravel(), minlength=40)
    assert set(counts) == {2}


def test_a_step_is_the_same_in_every_run_and_differs_by_seed():
    first, again, other = (
        sample_clips(ONE_SOURCE, LENGTHS, weights=[None], steps=9, clips=4, variants=3, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.examples, again.examples)
    assert np.array_equal(first.variants, again.variants)
    assert not np.array_equal(first.examples, other.examples)


def test_sources_come_by_weight():
    sources = np.array([0] * 30 + [1] * 10)
    found = sample_clips(sources, LENGTHS, weights=[1.0, 3.0], steps=500, clips=8)
    share = (sources[found.examples] == 1).mean()
    assert 0.72 < share < 0.78
    unweighted = sample_clips(sources, LENGTHS, weights=[None, None], steps=500, clips=8)
    assert 0.22 < (sources[unweighted.examples] == 1).mean() < 0.28


def test_clips_of_a_step_are_of_like_length():
    lengths = np.random.default_rng(0).integers(10, 1000, 4000)
    found = sample_clips(np.zeros(4000, np.int64), lengths, weights=[None], steps=2 * WINDOW, clips=16)
    inside = lengths[found.examples]
    assert (np.diff(inside, axis=1) >= 0).all()
    assert inside.max(1).sum() * 16 < 1.1 * inside.sum()


def test_shares_of_processes_make_up_the_step():
    found = sample_clips(ONE_SOURCE, LENGTHS, weights=[None], steps=2, clips=7)
    shares = [found.share(1, rank, 3)[0] for rank in range(3)]
    assert sorted(np.concatenate(shares)) == sorted(found.examples[1])
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_source_without_clips_is_refused():
    with pytest.raises(ManifestError, match="source 2"):
        sample_clips(ONE_SOURCE, LENGTHS, weights=[None, None], steps=1, clips=1)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30).map(sorted), st.integers(1, 200))
def test_parts_cover_the_step_and_keep_to_the_limit(lengths, positions):
    found = micro_batches(np.array(lengths), positions=positions)
    assert [index for part in found for index in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in found:
        clips = part.stop - part.start
        assert clips == 1 or lengths[part.stop - 1] * clips <= positions


def test_halving_ends_at_single_clips():
    slices = [slice(0, 5)]
    for _ in range(4):
        slices = halved(slices)
    assert slices == [slice(at, at + 1) for at in range(5)]
