"""COMET in a process of its own, with a package that stands in for it."""

from __future__ import annotations

import sys

import pytest

from shoal import tasks
from shoal.errors import ManifestError, UsageError
from shoal.evaluation import rescore
from shoal.evaluation.comet import VARIABLE, Comet
from shoal.schema import Scores
from stored_outputs import by_id, evaluation, output, summary

STAND_IN = '''
import sys
from types import SimpleNamespace

print("noise on stdout")

def download_model(name):
    if name != "org/known":
        raise KeyError(f"Model {name!r} not supported by COMET.")
    return "downloaded.ckpt"

def load_from_checkpoint(path):
    assert path.endswith(".ckpt")
    return Model()

class Model:
    """Scores by how many of the reference's words were said, and by the source being there."""

    def predict(self, segments, batch_size, gpus, progress_bar):
        print("more noise")
        return SimpleNamespace(scores=[score(each) for each in segments])

def score(segment):
    if segment["mt"] == "crash":
        sys.exit(3)
    wanted = segment["ref"].split()
    return len(set(wanted) & set(segment["mt"].split())) / len(wanted) + (segment["src"] == "quelle") / 8
'''


@pytest.fixture
def comet(tmp_path, monkeypatch):
    """A Python that has the package."""
    place = tmp_path / "site"
    (place / "unbabel_comet-9.9.dist-info").mkdir(parents=True)
    (place / "unbabel_comet-9.9.dist-info" / "METADATA").write_text("Name: unbabel-comet\nVersion: 9.9\n")
    (place / "comet.py").write_text(STAND_IN)
    (place / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setenv(VARIABLE, sys.executable)


def translations(said):
    return [output(n, "one two three four", text, lang="de", source="quelle") for n, text in enumerate(said)]


GOOD = ["one two three four", "one two three", "one two", "two four one"] * 5
BAD = ["one two", "one", "one two", "nothing"] * 5


def mean(said):
    """The stand-in's score by hand."""
    return sum(len({"one", "two", "three", "four"} & set(text.split())) / 4 + 1 / 8 for text in said) / len(said)


@pytest.mark.usefixtures("comet")
def test_segments_are_scored_and_compared_in_pairs(tmp_path):
    systems = {"full": translations(GOOD), "cut": translations(BAD)}
    out = evaluation(tmp_path / "out", systems, task="ast")
    rescore(out, comet="org/known", replicates=200)
    full, cut = Scores.load(out / "scores.json").systems
    assert list(full.measures) == ["BLEU", "chrF", "COMET"]
    assert full.measures["COMET"].value.value == pytest.approx(mean(GOOD))
    found = cut.measures["COMET"]
    assert found.value.value == pytest.approx(mean(BAD))
    assert found.delta.absolute.value == pytest.approx(mean(BAD) - mean(GOOD))
    assert found.delta.absolute.low < found.delta.absolute.value < found.delta.absolute.high < 0
    assert found.delta.p_holm == found.delta.p_value < 0.05
    assert found.higher_is_better
    assert found.signature == "unbabel-comet 9.9, org/known"


@pytest.mark.usefixtures("comet")
def test_scoring_again_keeps_comet_or_says_that_it_is_left_out(tmp_path, monkeypatch, caplog):
    out = evaluation(tmp_path / "out", {"full": translations(GOOD)}, task="ast")
    first = rescore(out, comet="org/known", replicates=20).systems[0].measures["COMET"]
    assert rescore(out).systems[0].measures["COMET"] == first
    assert not caplog.records
    # The model, and then the package, are no longer there.
    stored = Scores.load(out / "scores.json")
    stored.systems[0].measures["COMET"].signature = "unbabel-comet 9.9, org/gone"
    stored.save(out / "scores.json")
    assert list(rescore(out).systems[0].measures) == ["BLEU", "chrF"]
    (record,) = caplog.records
    assert "COMET is left out: " in record.message
    assert record.message.endswith("--rescore --comet org/gone scores it again")
    assert "\n" not in record.message
    stored.save(out / "scores.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no-python"))
    assert list(rescore(out).systems[0].measures) == ["BLEU", "chrF"]
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("comet")
def test_groups_are_scored_too():
    rows = [
        *translations(GOOD[:8]),
        *(output(20 + n, "one two", "one", source="quelle", speaker="b") for n in range(8)),
    ]
    found = summary(by_id(rows), task="ast", comet=Comet.of("org/known", tasks.get("ast")), group_by=["speaker"])
    assert found.systems[0].groups["speaker"]["b"].measures["COMET"].value.value == pytest.approx(0.625)


@pytest.mark.usefixtures("comet")
@pytest.mark.parametrize(
    ("model", "said", "problem"),
    [
        ("org/unknown", GOOD, "not supported by COMET"),
        ("org/known", ["crash"], "its process ended"),
    ],
)
def test_a_model_that_cannot_score_is_one_line(model, said, problem):
    scorer = Comet.of(model, tasks.get("ast"))
    with pytest.raises(UsageError, match=problem):
        summary(by_id(translations(said)), task="ast", comet=scorer)


@pytest.mark.usefixtures("comet")
def test_a_translation_without_its_transcript_cannot_be_scored():
    rows = [*translations(GOOD), output(50, "one two", "one", lang="de")]
    with pytest.raises(ManifestError, match="1 of 21 clips have no transcript"):
        summary(by_id(rows), task="ast", comet=Comet.of("org/known", tasks.get("ast")))


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"COMET is not installed.*pip install unbabel-comet"):
        Comet.of("org/known", tasks.get("ast"))
    monkeypatch.setenv(VARIABLE, "/no/such/python")
    with pytest.raises(UsageError, match="/no/such/python cannot be run"):
        Comet.of("org/known", tasks.get("ast"))


@pytest.mark.usefixtures("comet")
def test_what_it_cannot_score_is_refused_before_it_is_started():
    with pytest.raises(UsageError, match="the task asr is none"):
        Comet.of("org/known", tasks.get("asr"))
    with pytest.raises(UsageError, match=r"no such checkpoint: gone\.ckpt"):
        Comet.of("gone.ckpt", tasks.get("ast"))


def test_the_transcript_is_kept_beside_the_translation():
    kept = type(output(0, "a", "b")).of_line(output(0, "a translation", "said", source="eine Quelle").line())
    assert (kept.text, kept.source, kept.fields["text"]) == ("a translation", "eine Quelle", "eine Quelle")
    assert type(kept).of_line(output(0, "same", "said", source="same").line()).source is None
