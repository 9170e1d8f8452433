"""Batches by duration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.data import Row
from shoal.data.batches import batches
from shoal.errors import UsageError

durations = st.lists(st.floats(0.1, 120.0), max_size=60)


def rows_of(lengths: list[float]) -> list[Row]:
    return [Row(id=f"r{index}", audio=Path("a.wav"), duration=length) for index, length in enumerate(lengths)]


@given(lengths=durations, max_clips=st.integers(1, 20), max_seconds=st.floats(1.0, 500.0))
def test_every_row_is_in_one_batch_and_no_limit_is_passed(lengths, max_clips, max_seconds) -> None:
    rows = rows_of(lengths)
    made = batches(rows, max_clips=max_clips, max_seconds=max_seconds)
    assert sorted(row.id for batch in made for row in batch) == sorted(row.id for row in rows)
    for batch in made:
        assert 1 <= len(batch) <= max_clips
        padded = max(row.duration for row in batch) * len(batch)
        assert padded <= max_seconds or len(batch) == 1


@given(lengths=durations, seed=st.randoms())
def test_the_order_of_the_rows_does_not_matter_and_the_longest_come_first(lengths, seed) -> None:
    rows = rows_of(lengths)
    shuffled = list(rows)
    seed.shuffle(shuffled)
    made = batches(rows, max_clips=4, max_seconds=60.0)
    assert made == batches(shuffled, max_clips=4, max_seconds=60.0)
    flat = [row.duration for batch in made for row in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize(("max_clips", "max_seconds"), [(0, 10.0), (-1, 10.0), (1, 0.0), (1, float("nan"))])
def test_limits_that_hold_nothing_are_refused(max_clips, max_seconds) -> None:
    with pytest.raises(UsageError):
        batches(rows_of([1.0]), max_clips=max_clips, max_seconds=max_seconds)
