"""Loops: counted, what the worst clip has of the errors, and the bound that counts one that no clip has shown."""

from __future__ import annotations

import json
import random
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from shoal import tasks
from shoal.cards.facts import CardFacts
from shoal.cards.limits import limits
from shoal.cards.measured import Measured
from shoal.cli.evaluation_tables import summary
from shoal.evaluation import rescore
from shoal.evaluation.loops import MOST_COMPRESSION, compression, loops, repeats
from shoal.evaluation.score_systems import SystemIdentity, score_systems
from shoal.evaluation.settings import ScoringSettings, TokenLimit
from shoal.report.bundle import collect
from shoal.report.scores import build
from shoal.schema import Scores
from shoal.score_tables import loop_words
from stored_outputs import evaluation, output

SENTENCE = "the quick brown fox jumps over a lazy dog"
LOOP = "thank you for watching " * 12
FIFTEEN = TokenLimit(15)


def clips(count, *, wrong=(), loop=()):
    """Outputs of `SENTENCE`, right but for one word, or for all words and many more."""
    said = {**dict.fromkeys(wrong, SENTENCE.replace("fox", "ox")), **dict.fromkeys(loop, LOOP)}
    return [output(n, SENTENCE, said.get(n, SENTENCE)) for n in range(count)]


def scored(*systems, limit=FIFTEEN, **options):
    """Systems given as lists of outputs."""
    names = [SystemIdentity(name) for name in ("full", "cut", "shallow")[: len(systems)]]
    by_id = [{one.id: one for one in outputs} for outputs in systems]
    settings = ScoringSettings(**{"replicates": 50} | options)
    task = tasks.get("asr")
    return score_systems(names, by_id, list(by_id[0]), task, settings, limit=limit).systems


@pytest.fixture(scope="module")
def speech_texts(speech):
    """Transcripts and translations, with their languages."""
    lines = [line for path in sorted(speech.glob("*/manifest.jsonl")) for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return [(row[key], row["lang"]) for row in rows for key in ("text", "translation") if row.get(key)]


@pytest.mark.parametrize("said", [LOOP, "no " * 40, "a" * 60, "так " * 20, "谢谢观看" * 15, f"{SENTENCE} " * 6])
def test_what_repeats_itself_is_a_loop(said):
    assert loops(output(0, SENTENCE, said))


@pytest.mark.parametrize("said", ["", SENTENCE, "no no no no no", "ha ha ha", "one two three " * 2, f"{SENTENCE} " * 2])
def test_what_may_be_said_is_none(said):
    assert not loops(output(0, SENTENCE, said))


def test_a_loop_at_the_token_limit_need_not_repeat():
    assert loops(replace(output(0, SENTENCE, "one two three four"), truncated=True))


def test_what_repeats_because_the_speaker_does_is_none():
    assert not loops(output(0, "no " * 40, "no " * 39))


@pytest.mark.speech
def test_long_ordinary_text_is_none(speech_texts):
    texts = [text for text, lang in speech_texts if lang == "ru"]
    long = " ".join(dict.fromkeys(texts))
    assert len(long) > 5000
    # As a whole, and in bytes, it compresses better than a loop.
    assert len(long.encode()) / len(zlib.compress(long.encode())) > MOST_COMPRESSION
    assert not repeats(long)


@pytest.mark.speech
def test_no_real_transcript_is_a_loop(speech_texts):
    assert len(speech_texts) > 2000
    assert {text for text, _ in speech_texts if repeats(text)} == set()
    assert max(compression(text) for text, _ in speech_texts if text) < MOST_COMPRESSION


@pytest.mark.speech
def test_every_real_transcript_said_six_times_is_a_loop(speech_texts):
    long_enough = [text for text, _ in speech_texts if len(text) > 20]
    assert all(repeats(f"{text} " * 6) for text in long_enough[::20])


def test_loops_are_counted_and_named():
    full, cut = scored(clips(30, wrong=[3]), clips(30, wrong=[3], loop=[7, 8, 9, 20]))
    assert (full.loops, full.loop_clips) == (0, [])
    assert (cut.loops, cut.loop_clips) == (4, ["c007", "c008", "c009"])


def test_the_share_of_the_largest_clip_is_that_of_its_errors():
    system = scored(clips(30, wrong=[3, 4, 5], loop=[7]))[0]
    errors = len(LOOP.split())  # no word of it is right: it replaces nine and adds the others
    assert system.largest_clip == "c007"
    assert system.largest_share == pytest.approx(errors / (errors + 3))


def test_without_an_error_no_clip_has_the_most():
    assert scored(clips(3))[0].largest_share is None


# The bound.


def test_without_an_error_the_bound_is_the_rule_of_three():
    clips_seen, longest = 60, 15 / 3
    bound = scored(clips(clips_seen), replicates=10)[0].measures["WER"].bound_with_unseen
    assert bound == pytest.approx(longest * (1 - 0.05 ** (1 / clips_seen)), rel=0.1)
    assert bound == pytest.approx(longest * 3 / clips_seen, rel=0.12)


def test_bounds_are_those_of_a_plain_loop():
    full, cut = clips(40, wrong=range(0, 40, 4)), clips(40, wrong=range(10), loop=[30])
    systems = scored(full, cut, replicates=10)
    words, longest = len(SENTENCE.split()), 5
    errors = [[n % 4 == 0, n < 10 or (n == 30) * len(LOOP.split())] for n in range(40)]
    draw, values, changes = random.Random(1), [], []
    for _ in range(4000):
        weight = draw.expovariate(1)
        worst, average, length = weight * longest * words, weight * 10 / 40, weight * words
        base = 0.0
        for of_full, of_cut in errors:
            weight = draw.expovariate(1)
            base, worst, length = base + weight * of_full, worst + weight * of_cut, length + weight * words
        values.append(worst / length)
        changes.append(worst / (base + average) - 1)
    measured = systems[1].measures["WER"]
    assert measured.bound_with_unseen == pytest.approx(sorted(values)[3800], rel=0.04)
    assert measured.delta.relative_bound_with_unseen == pytest.approx(sorted(changes)[3800], rel=0.06)
    assert systems[0].measures["WER"].delta is None


def test_only_the_headline_of_all_clips_has_a_bound():
    outputs = [replace(one, speaker="ab"[n % 2]) for n, one in enumerate(clips(60, wrong=[1, 2]))]
    (system,) = scored(outputs)
    assert system.measures["CER"].bound_with_unseen is None
    assert system.groups["speaker"]["a"].measures["WER"].bound_with_unseen is None
    assert system.measures["WER"].bound_with_unseen is not None


def test_without_a_limit_or_generated_tokens_there_is_no_bound():
    assert scored(clips(5, wrong=[1]), limit=None)[0].measures["WER"].bound_with_unseen is None
    silent = [replace(one, tokens=0) for one in clips(5, wrong=[1])]
    assert scored(silent)[0].measures["WER"].bound_with_unseen is None


def test_the_bound_of_a_score_that_should_be_high_is_below_it():
    outputs = {one.id: one for one in [output(n, "gut", "gut" if n % 5 else "schlecht") for n in range(60)]}
    identity = [SystemIdentity("full"), SystemIdentity("cut")]
    right = {name: replace(one, pred_text=one.text) for name, one in outputs.items()}
    settings, limit = ScoringSettings(replicates=50), TokenLimit(9)
    systems = score_systems(identity, [right, outputs], list(outputs), tasks.get("sqa"), settings, limit=limit).systems
    score = next(iter(systems[1].measures.values()))
    assert 0.6 < score.bound_with_unseen < 0.8 - 1.645 * score.standard_error
    assert 0.2 < score.delta.relative_bound_with_unseen < 0.4
    assert systems[1].largest_share is None


def test_the_bound_holds_where_few_samples_show_a_loop():
    """In 1 clip of 100 a loop; most samples of 60 clips hold none, and yet the bound is above the true rate."""
    generator, held, words, errors = np.random.default_rng(0), 0, 9, len(LOOP.split())
    longest = 18 / 3
    truth = 0.99 * 0.1 / words + 0.01 * longest
    assert errors / words < longest
    for _ in range(20):
        loop = np.flatnonzero(generator.random(60) < 0.01)
        wrong = set(np.flatnonzero(generator.random(60) < 0.1)) - set(loop)
        (system,) = scored(clips(60, wrong=wrong, loop=loop), limit=TokenLimit(18), replicates=10)
        held += system.measures["WER"].bound_with_unseen > truth
    assert held >= 19


# What is said of it.


def document(tmp_path, *systems, limit=15):
    """Scores of a folder, scored again."""
    names = ("full", "cut")
    out = evaluation(tmp_path / "out", dict(zip(names, systems, strict=False)))
    stored = Scores.load(out / "scores.json")
    stored.decoding["max_new_tokens"] = limit
    stored.save(out / "scores.json")
    return rescore(out, replicates=50)


def test_one_line_says_what_a_loop_may_cost_each_system(tmp_path):
    scores = document(tmp_path, clips(200, wrong=range(40)), clips(200, wrong=range(80)))
    lines = [line for line in summary(scores) if isinstance(line, str)]
    both = r"no loop among 200 clips, but up to 1\.5 % of others may: WER is below these with 95 % confidence: "
    (line,) = [line for line in lines if re.match(both, line)]
    assert re.fullmatch(both + r"9\.6 % \(full\), 1\d % \(cut\)", line)
    assert re.search(r": WER is below 1\d\s% \(\+\d+\s% against full\) with", loop_words(scores, scores.systems[1]))
    alone = document(tmp_path / "alone", clips(200, wrong=range(40)))
    assert any(re.match(f"full: {both[:60]}", line) for line in summary(alone) if isinstance(line, str))


def test_loops_and_the_clip_with_most_errors_are_named(tmp_path):
    scores = document(tmp_path, clips(60, wrong=range(40)), clips(60, wrong=range(40), loop=[41, 42, 43, 44]))
    words = loop_words(scores, scores.systems[1])
    assert words.startswith("4 loops among 60 clips (c041, c042, c043, …); 21\u202f% of the errors are in c041; others")


def test_cards_and_reports_say_the_same(tmp_path):
    scores = document(tmp_path, clips(60, wrong=range(40)), clips(60, wrong=range(40), loop=[41]))
    facts = CardFacts(None, measured=[Measured(scores, scores.systems[1])])
    (line,) = [line for line in limits(facts) if line.startswith("Loops on other clips, in asr on `")]
    assert "1 loop among 60 clips (`c041`); 55 % of the errors are in `c041`; others may loop too: WER" in line
    (article,) = build(collect([scores])).view["articles"]
    assert article["loops"][1] == f"cut: {loop_words(scores, scores.systems[1])}."


def test_where_clips_differ_by_more_than_a_loop_would_cost_nothing_is_said(tmp_path):
    missed = [replace(one, pred_text="" if n % 2 else SENTENCE) for n, one in enumerate(clips(1000))]
    scores = document(tmp_path, missed)
    assert loop_words(scores, scores.systems[0]) == ""


def test_scores_without_a_recorded_limit_have_no_bound_and_older_ones_no_loops(tmp_path):
    scores = document(tmp_path, clips(40, wrong=[1], loop=[2]), limit="another rule")
    assert scores.systems[0].loops == 1
    assert scores.systems[0].measures["WER"].bound_with_unseen is None
    old = scores.systems[0].model_dump(exclude={"loops", "loop_clips", "largest_share", "largest_clip"})
    assert loop_words(scores, type(scores.systems[0]).model_validate(old)) == ""


@pytest.mark.parametrize("limit", [TokenLimit(), TokenLimit(40)])
def test_a_limit_is_read_from_its_record(limit):
    assert TokenLimit.recorded({"max_new_tokens": limit.label}) == limit
    assert TokenLimit.recorded({}) is None
