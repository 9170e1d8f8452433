"""Counting in blocks: the same numbers, and only a block in memory."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import fields

import pytest

from shoal.evaluation import utterance_counts
from shoal.evaluation.system_outputs import Output
from stored_outputs import by_id, output, summary

LABELS = ["happy", "sad", "angry"]


@pytest.mark.parametrize("task", ["asr", "ast", "ser"])
def test_the_size_of_a_block_changes_nothing(task, monkeypatch):
    texts = LABELS if task == "ser" else ["Alpha beta gamma delta.", "Epsilon, zeta eta", "theta iota kappa"]
    rows = [output(n, texts[n % 3], texts[n % 3 if n % 4 else 0], speaker=f"s{n % 5}") for n in range(31)]
    whole = summary(by_id(rows), by_id(rows[::-1]), task=task)
    monkeypatch.setattr(utterance_counts.blocks, "__defaults__", (4,))
    assert summary(by_id(rows), by_id(rows[::-1]), task=task) == whole


class Watched(Output):
    """An output that can be watched."""


class OnDisk(Mapping):
    """Outputs that are made when they are read; counts how many are held at once."""

    def __init__(self, count):
        self.count, self.held, self.most = count, 0, 0

    def __len__(self):
        return self.count

    def __iter__(self):
        return (f"c{number:03}" for number in range(self.count))

    def __getitem__(self, clip):
        plain = output(int(clip[1:]), "alpha beta gamma", "alpha beta", speaker=f"s{int(clip[1:]) % 3}")
        made = Watched(**{each.name: getattr(plain, each.name) for each in fields(plain)})
        self.held += 1
        self.most = max(self.most, self.held)
        weakref.finalize(made, self._gone)
        return made

    def _gone(self):
        self.held -= 1


def test_no_more_than_a_block_is_held(monkeypatch):
    monkeypatch.setattr(utterance_counts.blocks, "__defaults__", (10,))
    systems = OnDisk(95), OnDisk(95)
    found = summary(*systems)
    assert found.systems[0].measures["WER"].edits.deletions == 95
    # The next block's first output is read while the last one's name still holds it.
    assert max(each.most for each in systems) <= 21


def test_statistics_are_kept_in_small_numbers_without_loss():
    big = utterance_counts._compact(utterance_counts.np.array([[0.0, 70_000.0], [3.0, 1.0]]))
    assert big.dtype.itemsize == 4
    assert big.tolist() == [[0, 70_000], [3, 1]]
    assert utterance_counts._compact(utterance_counts.np.array([0.5, 1.0])).tolist() == [0.5, 1.0]
    assert utterance_counts._compact(utterance_counts.np.array([-1.0, 200.0])).tolist() == [-1, 200]


def test_a_disagreement_between_the_two_counts_is_told(monkeypatch):
    rows = by_id([output(n, "a b c", "a b") for n in range(6)])
    assert summary(rows).systems[0].disagreements == 0
    monkeypatch.setattr(
        utterance_counts,
        "word_errors_again",
        lambda references, _: utterance_counts.np.arange(len(references)),
    )
    assert summary(rows).systems[0].disagreements == 5
