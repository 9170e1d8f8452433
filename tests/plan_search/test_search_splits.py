"""Validation and confirmation: no clip and no speaker in both."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.data import Dataset, Row
from shoal.data.splits import Split, as_given, split, split_rows
from shoal.errors import UsageError

SPEAKERS = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=2, max_size=30)


def rows(speakers, folder="clips"):
    return [
        Row(f"clip{place}", Path(folder) / f"{place}.wav", 1.0, text="a", speaker=speaker)
        for place, speaker in enumerate(speakers)
    ]


def named(half):
    return {row.speaker for row in half if row.speaker is not None}


@given(SPEAKERS, st.integers(0, 5))
def test_both_halves_have_clips_and_none_is_in_both(speakers, seed):
    given_ = rows(speakers)
    first, second = split_rows(given_, seed)
    assert first
    assert second
    assert sorted(row.id for row in first + second) == sorted(row.id for row in given_)


@given(SPEAKERS, st.integers(0, 5))
def test_no_speaker_is_in_both_unless_there_is_but_one(speakers, seed):
    first, second = split_rows(rows(speakers), seed)
    alone = len(set(speakers)) == 1 and None not in speakers
    assert len(named(first) & named(second)) == alone


@given(SPEAKERS, st.integers(0, 5), st.randoms())
def test_the_same_clips_give_the_same_halves_in_any_order(speakers, seed, random):
    given_ = rows(speakers)
    before = [{row.id for row in half} for half in split_rows(given_, seed)]
    random.shuffle(given_)
    assert [{row.id for row in half} for half in split_rows(given_, seed)] == before


@given(SPEAKERS, st.integers(0, 5))
def test_halves_differ_by_no_more_than_the_largest_speaker(speakers, seed):
    given_ = rows(speakers)
    first, second = split_rows(given_, seed)
    largest = max(speakers.count(name) for name in named(given_)) if len(set(speakers)) > 1 else 1
    assert 0 <= len(first) - len(second) <= largest


def test_rows_keep_their_order_and_the_seed_decides():
    given_ = rows([None] * 20)
    first, _ = split_rows(given_, 0)
    assert first == [row for row in given_ if row in first]
    assert first != split_rows(given_, 1)[0]


def test_one_speaker_is_said_to_be_in_both():
    assert split(Dataset(["m"], rows(["a"] * 4)), 0).shared_speakers == 1
    assert split(Dataset(["m"], rows([None] * 4)), 0).shared_speakers == 0


def test_a_single_clip_is_refused():
    with pytest.raises(UsageError, match="--confirm-data"):
        split_rows(rows(["a"]), 0)


def test_other_clips_may_confirm_but_not_the_same():
    first, second = Dataset(["a"], rows(["x", "y"], "a")), Dataset(["b"], rows(["y", "z", "z"], "b"))
    both = as_given(first, second)
    assert both == Split(first, second)
    assert both.shared_speakers == 1
    assert both.info().manifests == ["a", "b"]
    assert both.info().clips == 5
    with pytest.raises(UsageError, match="1 clips are in --data too"):
        as_given(first, Dataset(["c"], second.rows + first.rows[:1]))
