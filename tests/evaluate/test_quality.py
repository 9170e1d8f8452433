"""Corpus scores from sums, against the libraries and plain loops, and their paired bootstrap."""

from __future__ import annotations

import random

import jiwer
import numpy as np
import pytest
import sacrebleu

from shoal import tasks
from shoal.bootstrap import Resampler, make_resampler
from shoal.errors import UsageError
from shoal.evaluate.quality import (
    Accuracy,
    Bleu,
    Cer,
    Chrf,
    MacroF1,
    Score,
    Uar,
    Wer,
    headline,
    paired_change,
    scores,
)

WORDS = ["The", "cat", "sat", "on", "a", "mat,", "and", "then", "it", "ran.", "Far", "away", "from", "us!"]
LABELS = ["angry", "calm", "happy", "sad"]


def sentences(size=40, seed=0, wrong=0.3):
    draw = random.Random(seed)
    references = [draw.choices(WORDS, k=draw.randint(1, 12)) for _ in range(size)]
    hypotheses = [
        [draw.choice(WORDS) if draw.random() < wrong else word for word in words if draw.random() > wrong / 3]
        for words in references
    ]
    return [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]


def emotions(size=60, seed=0, wrong=0.4):
    draw = random.Random(seed)
    references = draw.choices(LABELS, weights=[9, 3, 2, 1], k=size)
    return references, [
        draw.choice([*LABELS, "no idea"]) if draw.random() < wrong else one for one in references
    ]


def slow_uar(references, hypotheses):
    recalls = []
    for label in sorted(set(references)):
        said = [answer for wanted, answer in zip(references, hypotheses, strict=True) if wanted == label]
        recalls.append(said.count(label) / len(said))
    return sum(recalls) / len(recalls)


def slow_macro_f1(references, hypotheses):
    values = []
    for label in sorted(set(references)):
        hits = sum(wanted == said == label for wanted, said in zip(references, hypotheses, strict=True))
        recall, said = hits / references.count(label), hypotheses.count(label)
        precision = hits / said if said else 0.0
        values.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(values) / len(values)


def slow_accuracy(references, hypotheses):
    return sum(wanted == said for wanted, said in zip(references, hypotheses, strict=True)) / len(references)


SLOW = {
    "WER": (Wer(), sentences, jiwer.wer),
    "CER": (Cer(), sentences, jiwer.cer),
    "BLEU": (Bleu(), sentences, lambda refs, hyps: sacrebleu.corpus_bleu(hyps, [refs]).score),
    "chrF": (Chrf(), sentences, lambda refs, hyps: sacrebleu.corpus_chrf(hyps, [refs]).score),
    "accuracy": (Accuracy(), emotions, slow_accuracy),
    "UAR": (Uar(), emotions, slow_uar),
    "macro-F1": (MacroF1(), emotions, slow_macro_f1),
}


@pytest.fixture(params=SLOW)
def case(request):
    return SLOW[request.param]


def corpus(score: Score, references, hypotheses) -> float:
    return float(score.value(score.statistics(references, hypotheses).sum(axis=0)))


@pytest.mark.parametrize("seed", range(3))
def test_the_corpus_score_is_the_library_s(case, seed):
    score, texts, slow = case
    references, hypotheses = texts(seed=seed)
    if score.fraction:
        assert corpus(score, references, hypotheses) == pytest.approx(slow(references, hypotheses), abs=1e-12)
    else:
        assert corpus(score, references, hypotheses) == slow(references, hypotheses)


def test_a_replicate_is_the_score_of_the_corpus_that_was_drawn(case):
    score, texts, slow = case
    references, hypotheses = texts(size=25)
    speakers = [f"s{place % 7}" for place in range(25)]
    resampler = make_resampler(speakers, replicates=20, seed=1)
    replicates = score.value(resampler.totals(score.statistics(references, hypotheses)))
    for weights, found in zip(resampler.weights, replicates, strict=True):
        times = weights[resampler.groups].astype(int)
        drawn = [
            [text for text, n in zip(side, times, strict=True) for _ in range(n)]
            for side in (references, hypotheses)
        ]
        assert found == pytest.approx(slow(*drawn), abs=1e-10)


def test_perfect_answers_get_the_best_score(case):
    score, texts, _ = case
    references, _ = texts()
    best = 0 if not score.higher_is_better else 1 if score.fraction else 100
    assert corpus(score, references, references) == pytest.approx(best)


def test_nothing_to_score_is_undefined(case):
    score, texts, _ = case
    table = score.statistics(*texts())
    assert np.isnan(score.value(np.zeros_like(table[0])))
    assert score.value(np.zeros((2, 3, table.shape[1]))).shape == (2, 3)
    assert len(score.statistics([], [])) == 0


def test_empty_answers_are_the_worst(case):
    score, texts, _ = case
    references, _ = texts()
    worst = 0 if score.higher_is_better else 1
    assert corpus(score, references, [""] * len(references)) == worst


def test_signatures_name_a_version(case):
    assert any(character.isdigit() for character in case[0].signature)


def test_sacrebleu_signs_as_it_does_itself():
    metric = sacrebleu.BLEU()
    metric.corpus_score(["a"], [["a"]])
    assert Bleu().signature == str(metric.get_signature())
    assert "nc:6|nw:0" in Chrf().signature


@pytest.mark.parametrize("make", [Uar, MacroF1])
def test_labels_that_no_reference_has_do_not_count(make):
    references, hypotheses = emotions()
    fixed = make([*LABELS, "surprised", "no idea"])
    assert corpus(fixed, references, hypotheses) == pytest.approx(corpus(make(), references, hypotheses))
    assert "surprised" in fixed.signature


def test_statistics_with_fixed_labels_add_up_over_calls():
    references, hypotheses = emotions()
    score = Uar(LABELS)
    parts = [
        score.statistics(references[part], hypotheses[part]).sum(0) for part in (slice(9), slice(9, None))
    ]
    assert float(score.value(parts[0] + parts[1])) == pytest.approx(slow_uar(references, hypotheses))


def test_a_reference_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match="'sad'"):
        Uar(["happy"]).statistics(["happy", "sad"], ["happy", "happy"])


def relative(resampler: Resampler, score, slow, references, full, cut):
    """Every replicate by hand: the drawn corpus scored twice."""
    found = []
    for weights in resampler.weights:
        times = weights[resampler.groups].astype(int)
        a, b = (
            slow(
                [text for text, n in zip(references, times, strict=True) for _ in range(n)],
                [text for text, n in zip(said, times, strict=True) for _ in range(n)],
            )
            for said in (cut, full)
        )
        found.append((b - a) / b if score.higher_is_better else (a - b) / b)
    return found


def test_a_worse_system_changes_upwards_whichever_way_the_score_runs(case):
    score, texts, slow = case
    references, full = texts(size=30, wrong=0.2)
    _, cut = texts(size=30, wrong=0.2)
    cut = [said if place % 4 else "no idea" for place, said in enumerate(cut)]
    resampler = make_resampler([None] * 30, replicates=15, seed=2)
    tables = [score.statistics(references, said) for said in (cut, full)]
    value, replicates = paired_change(score, *tables, resampler)
    wanted = relative(resampler, score, slow, references, full, cut)
    assert value > 0
    assert replicates == pytest.approx(wanted, abs=1e-10)
    a, b = (corpus(score, references, said) for said in (cut, full))
    assert value == pytest.approx(abs(a - b) / b)


def test_over_a_perfect_full_model_errors_are_infinitely_more():
    score, resampler = Wer(), make_resampler([None] * 2, replicates=5, seed=0)
    full, cut = (score.statistics(["a b", "c"], said) for said in (["a b", "c"], ["a", "x"]))
    assert paired_change(score, cut, full, resampler)[0] == np.inf
    assert np.isnan(paired_change(score, full, full, resampler)[0])


@pytest.mark.parametrize(("task", "name"), [("asr", "WER"), ("ast", "BLEU"), ("ser", "accuracy")])
def test_every_task_that_asks_has_a_headline(task, name):
    assert headline(tasks.get(task)).name == name
    assert headline(tasks.get(task)) is scores(tasks.get(task))[0]


def test_a_task_that_asks_nothing_has_none():
    assert scores(tasks.get("lm")) == ()
    with pytest.raises(UsageError, match=r"^--task: nothing is decoded .* --metric ablation --task lm"):
        headline(tasks.get("lm"))
