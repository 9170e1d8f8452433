"""Corpus scores from sums, against the libraries and plain loops, and their paired bootstrap."""

from __future__ import annotations

import math
import random
import string

import jiwer
import numpy as np
import pytest
import sacrebleu
from sklearn import metrics

from shoal import tasks
from shoal.evaluation.paired_scores import score_rates, worsening
from shoal.evaluation.scores import registry
from shoal.evaluation.scores.answers import Answers, answers_of
from shoal.evaluation.scores.base import Score
from shoal.evaluation.scores.errors import Cer, Wer
from shoal.evaluation.scores.labels import Accuracy, MacroF1, Uar
from shoal.evaluation.scores.losses import BitsPerByte, Loss, Perplexity, WordPerplexity
from shoal.evaluation.scores.questions import ExactMatch, TokenF1
from shoal.evaluation.scores.registry import BY_NAME, headline, scores_of
from shoal.evaluation.scores.translation import Bleu, Chrf
from shoal.evaluation.significance import PairedBootstrap
from shoal.evaluation.system_outputs import Output
from shoal.evaluation.worst_case import longest_answer, unseen_pair
from shoal.statistics import Resampler, make_resampler
from shoal.tasks.settings import NEEDS

WORDS = ["The", "cat", "sat", "on", "a", "mat,", "and", "then", "it", "ran.", "Far", "away", "from", "us!"]
LABELS = ["angry", "calm", "happy", "sad"]


def paired_change(score, system, full, resampler):
    """From statistics of both: the relative change for the worse, and its replicates."""
    bootstrap = PairedBootstrap(resampler)
    change = worsening(score, *(score_rates(score, table, bootstrap) for table in (system, full)))
    return change.value, change.replicates


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
    return references, [draw.choice([*LABELS, "no idea"]) if draw.random() < wrong else one for one in references]


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
    return float(score.value(score.statistics(Answers(references, hypotheses)).sum(axis=0)))


@pytest.mark.parametrize("seed", range(3))
def test_the_corpus_score_is_the_library_s(case, seed):
    score, texts, slow = case
    references, hypotheses = texts(seed=seed)
    if score.fraction:
        assert corpus(score, references, hypotheses) == pytest.approx(slow(references, hypotheses), abs=1e-12)
    else:
        assert corpus(score, references, hypotheses) == pytest.approx(slow(references, hypotheses), rel=1e-12)


def test_a_replicate_is_the_score_of_the_corpus_that_was_drawn(case):
    score, texts, slow = case
    references, hypotheses = texts(size=25)
    speakers = [f"s{place % 7}" for place in range(25)]
    resampler = make_resampler(speakers, replicates=20, seed=1)
    replicates = score.value(resampler.totals(score.statistics(Answers(references, hypotheses))))
    for weights, found in zip(resampler.weights, replicates, strict=True):
        times = weights[resampler.groups].astype(int)
        drawn = [
            [text for text, n in zip(side, times, strict=True) for _ in range(n)] for side in (references, hypotheses)
        ]
        assert found == pytest.approx(slow(*drawn), abs=1e-10)


def test_perfect_answers_get_the_best_score(case):
    score, texts, _ = case
    references, _ = texts()
    best = 0 if not score.higher_is_better else 1 if score.fraction else 100
    assert corpus(score, references, references) == pytest.approx(best)


def test_nothing_to_score_is_undefined(case):
    score, texts, _ = case
    table = score.statistics(Answers(*texts()))
    assert np.isnan(score.value(np.zeros_like(table[0])))
    assert score.value(np.zeros((2, 3, table.shape[1]))).shape == (2, 3)
    assert len(score.statistics(Answers([], []))) == 0


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
        score.statistics(Answers(references[part], hypotheses[part])).sum(0) for part in (slice(9), slice(9, None))
    ]
    assert float(score.value(parts[0] + parts[1])) == pytest.approx(slow_uar(references, hypotheses))


def test_a_reference_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match="'sad'"):
        Uar(["happy"]).statistics(Answers(["happy", "sad"], ["happy", "happy"]))


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
    tables = [score.statistics(Answers(references, said)) for said in (cut, full)]
    value, replicates = paired_change(score, *tables, resampler)
    wanted = relative(resampler, score, slow, references, full, cut)
    assert value > 0
    assert replicates == pytest.approx(wanted, abs=1e-10)
    a, b = (corpus(score, references, said) for said in (cut, full))
    assert value == pytest.approx(abs(a - b) / b)


def test_the_linearised_standard_error_is_that_of_leaving_out_a_clip_at_a_time(case):
    """The jackknife, from the library's score of each corpus with one clip fewer."""
    score, texts, slow = case
    references, hypotheses = texts(size=60, wrong=0.3)
    without = [slow(references[:n] + references[n + 1 :], hypotheses[:n] + hypotheses[n + 1 :]) for n in range(60)]
    jackknife = np.sqrt(59 / 60 * ((np.array(without) - np.mean(without)) ** 2).sum())
    bootstrap = PairedBootstrap.draw([None] * 60, replicates=10)
    rates = score_rates(score, score.statistics(Answers(references, hypotheses)), bootstrap)
    assert bootstrap.standard_error(rates) == pytest.approx(jackknife, rel=0.12)


def test_over_a_perfect_full_model_errors_are_infinitely_more():
    score, resampler = Wer(), make_resampler([None] * 2, replicates=5, seed=0)
    full, cut = (score.statistics(Answers(["a b", "c"], said)) for said in (["a b", "c"], ["a", "x"]))
    assert paired_change(score, cut, full, resampler)[0] == np.inf
    assert np.isnan(paired_change(score, full, full, resampler)[0])


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("asr", "WER"),
        ("ast", "BLEU"),
        ("ser", "accuracy"),
        ("sqa", "exact match"),
        ("lm", "perplexity"),
        ("tts", "loss"),
    ],
)
def test_every_task_has_a_headline(task, name):
    assert headline(tasks.get(task)).name == name
    assert [score.name for score in scores_of(tasks.get(task))] == list(tasks.get(task).scored_by)
    assert BY_NAME[name].name == name


def test_the_scores_that_a_yaml_may_name_are_those_there_are():
    assert set(NEEDS) == set(registry.BY_NAME)


# SQuAD 1.1's published algorithm, written once more from its description.


def squad_normal(text):
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the"))


def squad_f1(said, right):
    said, right = said.split(), right.split()
    left, shared = list(right), 0
    for word in said:
        if word in left:
            left.remove(word)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(right)
    return 2 * precision * recall / (precision + recall)


QUESTIONS = [
    ("The cat", ["the cat.", "a tabby cat"], "A Cat!"),
    ("forty two", ["42", "forty-two"], "it is forty two"),
    ("in the old town", ["old town", "downtown"], "The old, old town"),
    ("yes", ["yes"], "no"),
    ("Paris", ["Paris", "the city of Paris"], ""),
    ("blue", [], "the the blue"),
]


def question_outputs():
    return [
        output(str(place), text=text, pred_text=said, fields={"answer": text, "answers": others})
        for place, (text, others, said) in enumerate(QUESTIONS)
    ]


def output(name, **more):
    common = {"audio_filepath": "a.wav", "duration": 1.0, "offset": 0.0, "lang": "en", "speaker": None}
    counts = {
        "tokens": 1,
        "truncated": False,
        "encode_seconds": 0,
        "prefill_seconds": 0,
        "decode_seconds": 0,
    }
    return Output(id=name, **{**common, **counts, "text": "", "pred_text": "", **more})


def corpus_of(score, task, outputs):
    return float(score.value(score.statistics(answers_of(tasks.get(task), outputs)).sum(axis=0)))


def test_exact_match_and_token_f1_are_squad_s_with_the_best_accepted_answer():
    found = question_outputs()
    exact, f1 = [], []
    for text, others, said in QUESTIONS:
        rights = [squad_normal(right) for right in [text, *others]]
        exact.append(max(float(squad_normal(said) == right) for right in rights))
        f1.append(max(squad_f1(squad_normal(said), right) for right in rights))
    assert corpus_of(ExactMatch(), "sqa", found) == pytest.approx(sum(exact) / len(exact))
    assert corpus_of(TokenF1(), "sqa", found) == pytest.approx(sum(f1) / len(f1))
    assert 0 < sum(exact) < sum(f1) < len(f1)


def test_token_f1_counts_characters_where_a_script_has_no_spaces():
    found = [output("a", text="北京大学", pred_text="北京", lang="zh")]
    assert corpus_of(TokenF1(), "sqa", found) == pytest.approx(2 * 1 * 0.5 / 1.5)


def chosen_outputs(size=30, seed=3):
    draw = random.Random(seed)
    return [
        output(
            str(place),
            text=draw.choice(LABELS).title(),
            pred_text="happy",
            choices={label: -draw.uniform(1, 9) * len(label) for label in LABELS},
        )
        for place in range(size)
    ]


@pytest.mark.parametrize(
    ("score", "slow", "per_byte"),
    [
        (Accuracy("chosen"), slow_accuracy, False),
        (Uar(judged="chosen"), slow_uar, False),
        (MacroF1(judged="chosen"), slow_macro_f1, False),
        (Accuracy("chosen per byte"), slow_accuracy, True),
        (Uar(judged="chosen per byte"), slow_uar, True),
        (MacroF1(judged="chosen per byte"), slow_macro_f1, True),
    ],
)
def test_the_likeliest_label_is_what_was_chosen(score, slow, per_byte):
    found = chosen_outputs()
    picked = []
    for one in found:
        best, value = None, None
        for label, likelihood in one.choices.items():
            mine = likelihood / len(label) if per_byte else likelihood
            if value is None or mine > value:
                best, value = label, mine
        picked.append(best)
    wanted = slow([one.text.lower() for one in found], picked)
    assert corpus_of(score, "ser", found) == pytest.approx(wanted)
    assert "log-likelihood" in score.signature
    assert ("per byte" in score.signature) == per_byte


def test_an_utterance_without_choices_does_not_count_among_those_chosen():
    found = chosen_outputs(4)
    bare = [*found, output("bare", text="Happy", pred_text="happy")]
    for score in (Accuracy("chosen"), Uar(judged="chosen"), MacroF1(judged="chosen")):
        assert corpus_of(score, "ser", bare) == pytest.approx(corpus_of(score, "ser", found))
        assert np.isnan(corpus_of(score, "ser", bare[-1:]))


def test_free_answers_are_scored_as_scikit_learn_does():
    references, said = emotions(200)
    labels = sorted(set(references))
    found = [output(str(n), text=a, pred_text=b) for n, (a, b) in enumerate(zip(references, said, strict=True))]
    wanted = {
        "accuracy": metrics.accuracy_score(references, said),
        "UAR": metrics.recall_score(references, said, labels=labels, average="macro"),
        "macro-F1": metrics.f1_score(references, said, labels=labels, average="macro"),
    }
    for name, value in wanted.items():
        assert corpus_of(BY_NAME[name], "ser", found) == pytest.approx(value)
    off_label = [*found, output("off", text="sad", pred_text="purple")]
    references, said = [*references, "sad"], [*said, "purple"]
    with_labels = metrics.f1_score(references, said, labels=labels, average="macro")
    assert with_labels != pytest.approx(metrics.f1_score(references, said, average="macro"))
    assert corpus_of(MacroF1(), "ser", off_label) == pytest.approx(with_labels)
    assert "other answers are misses, no classes of their own" in MacroF1(labels).signature


def test_a_likelihood_that_is_not_a_number_is_never_the_highest():
    one = output("a", text="sad", choices={"happy": math.nan, "sad": -5.0})
    assert answers_of(tasks.get("ser"), [one]).chosen == ["sad"]


def test_perplexities_are_those_of_plain_sums():
    texts, losses = ["Good day.", "Grüß Gott, Welt"], [(7.5, 3), (20.0, 6)]
    found = [output(str(n), text=text, loss=loss) for n, (text, loss) in enumerate(zip(texts, losses, strict=True))]
    nats, tokens = 27.5, 9
    words, size = 2 + 3, len("Good day.") + len("Gruess Gott, Welt")
    assert corpus_of(Loss(), "lm", found) == pytest.approx(nats / tokens)
    assert corpus_of(Perplexity(), "lm", found) == pytest.approx(math.exp(nats / tokens))
    assert corpus_of(WordPerplexity(), "lm", found) == pytest.approx(math.exp(nats / words))
    assert corpus_of(BitsPerByte(), "lm", found) == pytest.approx(nats / size / math.log(2))
    assert np.isnan(corpus_of(Perplexity(), "lm", [output("none", text="x")]))
    # Outputs of old: a text of one token that nothing predicted.
    bare = [*found, output("bare", text="a", loss=(0.0, 0))]
    for score in (Loss(), WordPerplexity(), BitsPerByte()):
        assert corpus_of(score, "lm", bare) == corpus_of(score, "lm", found)


def test_bleu_takes_the_tokeniser_of_the_target_language():
    chinese = tasks.restored("zh", {**tasks.get("ast").settings.model_dump(), "name": "zh", "target_lang": "zh"})
    references, said = ["我们去北京大学"], ["我们去北京"]
    found = [output("a", text=references[0], pred_text=said[0])]
    (bleu, _), wanted = scores_of(chinese), sacrebleu.corpus_bleu(said, [references], tokenize="zh")
    value = float(bleu.value(bleu.statistics(answers_of(chinese, found)).sum(axis=0)))
    assert value == pytest.approx(wanted.score)
    assert wanted.score > 0
    assert "tok:zh" in bleu.signature
    assert "tok:13a" in scores_of(tasks.get("ast"))[0].signature


# The worst clip that there can be, as texts: three-letter words, so that every reference is an average one.

PLAIN = ["cat sat the mat", "the mat sat cat", "mat mat the cat", "sat sat cat the"]


@pytest.mark.parametrize("name", ["WER", "CER", "compound WER", "BLEU", "chrF", "exact match", "token F1"])
@pytest.mark.parametrize("longest", [1, 3])
def test_the_worst_clip_says_nothing_right_up_to_the_limit(name, longest):
    score, said = BY_NAME[name], ["cat sat the mat", "the mat mat", "cat the", "sat sat cat the"]
    statistics = score.statistics(Answers(PLAIN, said))
    # Words would share their spaces with the reference, which CER counts as right.
    wrong = "1" * 15 * longest if name == "CER" else " ".join(["123"] * 4 * longest)
    worse = corpus(score, [*PLAIN, PLAIN[0]], [*said, wrong])
    assert score.value(statistics.sum(axis=0) + score.worst_clip(statistics, longest)) == pytest.approx(worse)


@pytest.mark.parametrize("score", [Accuracy(), Uar(LABELS), MacroF1(LABELS)])
def test_the_worst_answer_misses_the_costliest_label(score):
    references, said = ["sad"] * 2 + ["calm"] * 3 + ["happy"] * 9, ["sad", "calm"] + ["calm"] * 3 + ["happy"] * 9
    statistics = score.statistics(Answers(references, said))
    every = [
        corpus(score, [*references, reference], [*said, answer])
        for reference in ("sad", "calm", "happy")
        for answer in ("sad", "calm", "happy")
    ]
    assert score.value(statistics.sum(axis=0) + score.worst_clip(statistics, 2.0)) == pytest.approx(min(every))


def test_a_score_without_a_bound_has_the_worst_clip_that_was_seen():
    nats = [(4.0, 4), (9.0, 3), (10.0, 10)]
    statistics = Loss().statistics(Answers(["a"] * 3, ["a"] * 3, losses=nats))
    assert Loss().worst_clip(statistics, 2.0).tolist() == [9.0, 3.0]


def test_how_long_an_answer_may_be_is_weighed_by_seconds():
    assert longest_answer([20, 60], [1.0, 3.0], tokens=20) == 50 / 10
    assert longest_answer([20, 60], [0.0, 0.0], tokens=0) == 40
    pair = unseen_pair(Accuracy(), np.array([[1, 1], [0, 1]]), np.array([[1, 1], [0, 1]]), 2.0)
    assert pair.tolist() == [0, 1, 0.5, 1]
