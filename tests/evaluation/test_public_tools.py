"""Scores of a stored evaluation equal what the public tools say of the same lines, run by hand."""

from __future__ import annotations

import json
import random

import jiwer
import kaldialign
import pytest
import sacrebleu
from sklearn.metrics import accuracy_score, f1_score, recall_score
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

import stored_outputs
from shoal.evaluation import rescore

TEXT = "the white paper lies on a table and nobody reads whitepaper or book of twenty five pages"
WORDS = TEXT.split()


def noisy(words, draw):
    kept = [draw.choice(WORDS) if draw.random() < 0.2 else word for word in words if draw.random() > 0.1]
    return " ".join(kept).replace("white paper", "whitepaper")


def pairs(size=60, seed=0):
    draw = random.Random(seed)
    texts = [draw.choices(WORDS, k=draw.randint(3, 12)) for _ in range(size)]
    return [(" ".join(words).capitalize() + ".", noisy(words, draw)) for words in texts]


def scored(folder, systems, task):
    """The first and the last system of a stored evaluation, scored, and the lines of the last."""
    stored_outputs.evaluation(folder, systems, task=task)
    rescore(folder, replicates=20)
    document = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    path = folder / document["systems"][-1]["outputs_file"]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return document["systems"][-1], [line["text"] for line in lines], [line["pred_text"] for line in lines]


def outputs(texts, **fields):
    return [stored_outputs.output(n, wanted, said, **fields) for n, (wanted, said) in enumerate(texts)]


def test_error_rates_equal_jiwers_and_kaldialigns(tmp_path):
    system, wanted, said = scored(tmp_path / "out", {"full": outputs(pairs())}, "asr")
    normalise = EnglishTextNormalizer()
    wanted, said = [normalise(text) for text in wanted], [normalise(text) for text in said]
    assert system["measures"]["WER"]["value"]["value"] == pytest.approx(jiwer.wer(wanted, said), abs=1e-12)
    assert system["measures"]["CER"]["value"]["value"] == pytest.approx(jiwer.cer(wanted, said), abs=1e-12)
    aligned = jiwer.process_words(wanted, said)
    counts = {
        key: system["measures"]["WER"]["edits"][key] for key in ("hits", "substitutions", "insertions", "deletions")
    }
    assert counts == {key: getattr(aligned, key) for key in counts}
    merged = kaldialign.batch_error_rate(
        [text.split() for text in wanted], [text.split() for text in said], merge_compounds=True
    )
    assert system["measures"]["compound WER"]["value"]["value"] == pytest.approx(merged["err_rate"], abs=1e-12)
    assert system["measures"]["compound WER"]["value"]["value"] < system["measures"]["WER"]["value"]["value"]
    assert system["disagreements"] == 0


def test_error_rates_of_another_language_equal_jiwers(tmp_path):
    texts = [("Müßiggang ist aller Laster Anfang.", "müssiggang ist alle laster anfang"), ("Ja, ja!", "ja")]
    system, wanted, said = scored(tmp_path / "out", {"full": outputs(texts, lang="de")}, "asr")
    normalise = BasicTextNormalizer(preserve_marks=True)
    by_hand = jiwer.wer([normalise(text).strip() for text in wanted], [normalise(text).strip() for text in said])
    assert system["measures"]["WER"]["value"]["value"] == pytest.approx(by_hand, abs=1e-12)


def test_translation_scores_equal_sacrebleus_with_its_signatures(tmp_path):
    systems = {"full": outputs(pairs(seed=2), lang="de"), "cut": outputs(pairs(seed=1), lang="de")}
    system, wanted, said = scored(tmp_path / "out", systems, "ast")
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    assert system["measures"]["BLEU"]["value"]["value"] == pytest.approx(
        bleu.corpus_score(said, [wanted]).score, abs=1e-9
    )
    assert system["measures"]["BLEU"]["signature"] == str(bleu.get_signature())
    assert system["measures"]["chrF"]["value"]["value"] == pytest.approx(
        chrf.corpus_score(said, [wanted]).score, abs=1e-9
    )
    assert system["measures"]["chrF"]["signature"] == str(chrf.get_signature())


def test_scores_of_labels_equal_scikit_learns(tmp_path):
    draw = random.Random(3)
    labels = ["happy", "sad", "angry", "neutral"]
    wanted = draw.choices(labels, weights=[8, 1, 1, 4], k=80)
    texts = [(label, label if draw.random() < 0.6 else draw.choice(labels)) for label in wanted]
    system, wanted, said = scored(tmp_path / "out", {"full": outputs(texts)}, "ser")
    found = {name: score["value"]["value"] for name, score in system["measures"].items()}
    assert found["accuracy"] == pytest.approx(accuracy_score(wanted, said))
    assert found["UAR"] == pytest.approx(recall_score(wanted, said, average="macro"))
    assert found["macro-F1"] == pytest.approx(f1_score(wanted, said, average="macro"))
