"""Error counts by utterance, checked against kaldialign and by hand."""

from __future__ import annotations

import random

import kaldialign
import numpy as np
import pytest

from shoal.evaluation.scores.edit_counts import char_counts, scorer_name, word_counts

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "ran", "far", "away", "from", "us"]


def noisy(words, draw):
    out = []
    for word in words:
        chance = draw.random()
        if chance < 0.15:
            continue
        out.append(draw.choice(WORDS) if chance < 0.3 else word)
        if chance > 0.85:
            out.append(draw.choice(WORDS))
    return out


def corpus(size=150, seed=0):
    draw = random.Random(seed)
    references = [draw.choices(WORDS, k=draw.randint(0, 14)) for _ in range(size)]
    return references, [noisy(reference, draw) for reference in references]


def test_errors_of_every_utterance_equal_kaldialigns():
    references, hypotheses = corpus()
    counts = word_counts([" ".join(r) for r in references], [" ".join(h) for h in hypotheses])
    expected = [
        kaldialign.edit_distance(reference, hypothesis)["total"]
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    assert counts.errors.tolist() == expected
    assert counts.lengths.tolist() == [len(reference) for reference in references]


def test_character_errors_equal_kaldialigns():
    references, hypotheses = corpus(60, seed=1)
    texts = [(" ".join(r), " ".join(h)) for r, h in zip(references, hypotheses, strict=True)]
    counts = char_counts(*zip(*texts, strict=True))
    assert counts.errors.tolist() == [kaldialign.edit_distance(list(r), list(h))["total"] for r, h in texts]


def test_operations_are_told_apart():
    total = word_counts(["a b c d", "x", "y z"], ["a q c d", "x w v", "z"]).total()
    assert (total.hits, total.substitutions, total.insertions, total.deletions) == (5, 1, 2, 1)


def test_hits_and_hypothesis_length_add_up():
    references, hypotheses = corpus(80, seed=2)
    table = word_counts([" ".join(r) for r in references], [" ".join(h) for h in hypotheses]).table
    assert (table[:, 0] + table[:, 1] + table[:, 2]).tolist() == [len(h) for h in hypotheses]


def test_an_empty_reference_counts_insertions_and_no_length():
    counts = word_counts(["", "a b"], ["one two three", ""])
    assert counts.errors.tolist() == [3, 2]
    assert counts.lengths.tolist() == [0, 2]


def test_spacing_does_not_count():
    assert char_counts(["a  b "], ["a b"]).errors.tolist() == [0]


def test_select_takes_a_mask():
    counts = word_counts(["a", "b", "c"], ["a", "x", "c d"])
    assert counts.select(np.array([False, True, True])).errors.tolist() == [1, 1]


@pytest.mark.parametrize("count", [word_counts, char_counts])
def test_no_utterances_is_no_counts(count):
    assert count([], []).table.shape == (0, 4)


def test_the_scorer_names_its_version():
    assert scorer_name().split()[0] == "jiwer"
    assert scorer_name().split()[1][0].isdigit()
