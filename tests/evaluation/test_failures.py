"""In what way answers are wrong, and the distance to the cliff."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from shoal.evaluation.cliff import cliffs
from shoal.evaluation.failures import KINDS, NONE, failure_of, failure_shares, script, wilson
from shoal.evaluation.paired_scores import score_rates
from shoal.evaluation.scores import registry
from shoal.evaluation.significance import PairedBootstrap
from shoal.provenance import provenance
from shoal.schema import Plan, SystemScores
from shoal.score_tables import cliff_lines

REFERENCE = "the quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (REFERENCE, None),
        ("the quick brown box jumps over a lazy dog", None),
        ("", "empty"),
        ("the quick brown fox jumps", "early end"),
        ("the quick brown fox jumps over the", None),  # two words are a slip
        ("the quick brown fox and then we all went home jumps over the lazy dog", "invented"),
        ("the quick brown fox jumps over the lazy dog thank you for watching", "invented"),
        ("we are very glad to see you all here", "unrelated"),
        ("быстрая лиса прыгает через собаку the", "other script"),
        ("the quick быстрая brown fox jumps over the lazy dog", None),
    ],
)
def test_what_a_listener_would_say(answer, kind):
    assert failure_of(REFERENCE.split(), answer.split()) == kind
    assert failure_of(REFERENCE.split(), answer.split(), looping=True) == "loop"


def test_short_references_are_not_called_unrelated_or_ended():
    assert failure_of(["yes"], ["no"]) is None
    assert failure_of(["yes", "please"], ["no"]) is None
    assert failure_of(["yes"], []) == "empty"
    assert failure_of([], ["words"]) is None


def test_scripts_of_japanese_count_as_one():
    assert {script(letter) for letter in "漢かカ"} == {"CJK"}
    assert failure_of(list("東京です"), list("トーキョです")) is None


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=12)


@given(WORDS, WORDS)
def test_only_what_is_wrong_has_a_kind_and_cutting_the_end_is_an_early_end(reference, answer):
    kind = failure_of(reference, answer)
    assert kind is None or reference != answer
    if len(reference) >= 4 and len(set(reference)) == len(reference):
        cut = reference[: len(reference) - max(3, -(-len(reference) // 4))]
        assert failure_of(reference, cut) == ("early end" if cut else "empty")


def test_shares_are_counted_by_hand_and_come_with_intervals():
    kinds = np.array([KINDS.index("loop"), NONE, KINDS.index("empty"), KINDS.index("loop"), NONE, NONE, NONE, NONE])
    shares = failure_shares(kinds, list("abcdefgh"), PairedBootstrap.draw([None] * 8, replicates=200))
    assert list(shares) == ["loop", "empty"]
    assert (shares["loop"].clips, shares["loop"].share.value, shares["loop"].first) == (2, 0.25, ["a", "d"])
    assert 0 <= (shares["loop"].share.low or 0) < 0.25 < (shares["loop"].share.high or 0) <= 1


def test_wilson_is_where_the_share_is_one_and_a_bit_standard_errors_from_each_bound():
    for count, trials in ((0, 20), (3, 26), (50, 100)):
        low, high = wilson(count / trials, trials, 0.95)
        known = binomtest(count, trials).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((known.low, known.high), abs=1e-12)


def test_clips_of_a_speaker_that_fail_together_are_worth_fewer():
    kinds = np.repeat([0, NONE, NONE, NONE], 10)
    names = [str(clip) for clip in range(40)]
    apart = failure_shares(kinds, names, PairedBootstrap.draw([None] * 40, replicates=200))["loop"].share
    alike = [f"speaker {clip // 10}" for clip in range(40)]
    together = failure_shares(kinds, names, PairedBootstrap.draw(alike, replicates=200))["loop"].share
    assert (together.high or 0) > (apart.high or 0) + 0.1


def systems_of(errors_by_size: dict[int, np.ndarray], words: np.ndarray):
    """Systems without so many layers, with these errors (U,), and their rates; size 0 is the model."""
    wer = registry.scores_of(_asr())[0]
    bootstrap = PairedBootstrap.draw([None] * len(words), replicates=300)
    systems, rates = [], []
    for size, errors in errors_by_size.items():
        plan = Plan(provenance=provenance(), model_ref="m", depth=30, layers=list(range(1, 1 + size)), strategy="block")
        gone = plan.layers
        systems.append(SystemScores(name=str(size), removed=gone, plan=plan if size else None))
        none = np.zeros_like(words)
        rates.append(score_rates(wer, np.stack([words - errors, errors, none, none], axis=1), bootstrap))
    return systems, rates


def _asr():
    from shoal import tasks

    return tasks.get("asr")


def test_the_cliff_is_the_first_size_whose_error_more_than_doubles_and_its_interval_a_slow_bootstrap():
    generator = np.random.default_rng(0)
    words = generator.integers(4, 12, 60)
    base = generator.binomial(words, 0.1)
    sizes = {
        0: base,
        2: base + generator.binomial(words - base, 0.04),
        4: base + generator.binomial(words - base, 0.1),
        8: words,
    }
    systems, rates = systems_of(sizes, words)
    (cliff,) = cliffs(systems, rates, 0.95)
    ratios = {size: errors.sum() / base.sum() for size, errors in sizes.items() if size}
    expected = min(size for size, ratio in ratios.items() if ratio > 2)
    assert (cliff.breaks, cliff.holds) == (expected, max([s for s in ratios if s < expected], default=0))
    found = []
    for _ in range(2000):
        drawn = generator.integers(0, 60, 60)
        broken = [size for size in (2, 4, 8) if sizes[size][drawn].sum() > 2 * base[drawn].sum()]
        found.append(min(broken, default=np.inf))
    slow = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    assert (cliff.low, cliff.high) == tuple(slow)


def test_a_cliff_that_was_not_reached_is_said_to_be_beyond():
    words = np.full(40, 10)
    systems, rates = systems_of({0: np.full(40, 2), 2: np.full(40, 2), 4: np.full(40, 3)}, words)
    (cliff,) = cliffs(systems, rates, 0.95)
    assert (cliff.holds, cliff.breaks, cliff.low, cliff.high) == (4, None, None, None)
    scores = type("S", (), {"cliffs": [cliff], "level": 0.95, "headline": "WER"})()
    assert cliff_lines(scores) == ["block plans: WER does not double with up to 4 layers gone"]  # type: ignore[arg-type]


def test_one_plan_or_a_model_without_errors_has_no_cliff():
    words = np.full(10, 10)
    assert cliffs(*systems_of({0: np.full(10, 2), 4: np.full(10, 9)}, words), 0.95) == []
    assert cliffs(*systems_of({0: np.zeros(10, int), 4: words, 6: words}, words), 0.95) == []
