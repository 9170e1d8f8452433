"""Stored outputs in the shapes of other tools."""

from __future__ import annotations

import json
import re
from hashlib import sha256

import pytest

from shoal.errors import FileFormatError, UsageError
from shoal.evaluation import rescore
from shoal.evaluation.export import formats
from shoal.evaluation.export.scored_outputs import file_names, replaced
from shoal.schema import Scores
from stored_outputs import evaluation, output

WANTED = ["Hello there, Mr. Smith!", "It's 5 o'clock.", "(noise) Good   morning"]
SAID = ["hello there mister smith", "it is six o'clock", "good\nmorning {you}"]


def folder(tmp_path, systems=("full", "cut: #1")):
    said = [
        output(n, wanted, text, speaker="a b", accent="x")
        for n, (wanted, text) in enumerate(zip(WANTED, SAID, strict=True))
    ]
    right = [output(n, wanted, wanted, speaker="a b", accent="x") for n, wanted in enumerate(WANTED)]
    return evaluation(tmp_path / "out", dict(zip(systems, (right, said), strict=True)))


def test_results_have_the_shape_of_lm_eval(tmp_path):
    out = folder(tmp_path)
    rescore(out, exports=["lm-eval"], replicates=50)
    scores = Scores.load(out / "scores.json")
    (path,) = (out / "exports" / "lm-eval" / "cut_1").glob("results_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    system = scores.systems[1]
    metrics = found["results"]["asr"]
    assert metrics["wer,none"] == system.measures["WER"].value.value
    assert metrics["wer_stderr,none"] == system.measures["WER"].standard_error > 0
    assert (metrics["alias"], metrics["sample_len"]) == ("asr", 3)
    assert found["higher_is_better"] == {"asr": {"wer": False, "cer": False, "compound_wer": False}}
    assert found["n-samples"] == {"asr": {"original": 3, "effective": 3}}
    assert found["n-shot"] == {"asr": 0}
    assert found["config"]["model_args"]["removed_layers"] == "1"
    assert found["model_name_sanitized"] == "org__model cut__ #1"
    assert set(found["configs"]) == set(found["versions"]) == set(found["task_hashes"]) == {"asr"}


def test_samples_have_the_shape_of_lm_eval(tmp_path):
    out = folder(tmp_path)
    rescore(out, exports=["lm-eval"])
    place = out / "exports" / "lm-eval" / "cut_1"
    (path,), (results,) = place.glob("samples_asr_*.jsonl"), place.glob("results_*.json")
    # lm-eval pairs the two by what stands after the last underscore.
    assert path.stem.rpartition("_")[2] == results.stem.rpartition("_")[2]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    second = lines[1]
    assert second["wer"] == pytest.approx(1 / 4)
    assert second["target"] == WANTED[1]
    assert second["resps"] == [[SAID[1]]]
    assert second["filtered_resps"] == [SAID[1]]
    assert second["doc"]["accent"] == "x"
    assert "pred_text" not in second["doc"]
    assert set(second["metrics"]) == {"wer", "cer", "compound_wer"}
    assert second["arguments"]["gen_args_0"]["arg_0"] == "Transcribe the speech."
    hashes = "".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines)
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["task_hashes"]["asr"] == sha256(hashes.encode()).hexdigest()
    assert second["target_hash"] == sha256(WANTED[1].encode()).hexdigest()


def test_names_of_scores_keep_no_comma(tmp_path):
    rows = [output(n, "sad", "sad") for n in range(4)]
    out = evaluation(tmp_path / "out", {"full": rows}, task="ser")
    rescore(out, exports=["lm-eval"])
    (path,) = (out / "exports" / "lm-eval" / "full").glob("results_*.json")
    metrics = json.loads(path.read_text())["results"]["ser"]
    named = [key for key in metrics if key not in ("name", "alias", "sample_len")]
    assert {"accuracy,none", "uar,none", "macro_f1_stderr,none"} <= set(named)
    assert all(key.count(",") == 1 for key in named)


def test_another_export_replaces_the_one_before(tmp_path):
    out = folder(tmp_path)
    place = out / "exports" / "lm-eval" / "full"
    place.mkdir(parents=True)
    (place / "results_2020-01-01T00-00-00.json").write_text("{}")
    (place / "notes.txt").write_text("mine")
    rescore(out, exports=["lm-eval"])
    assert len(list(place.glob("results_*.json"))) == 1
    assert (place / "notes.txt").read_text() == "mine"


def test_nemo_manifests_hold_the_row_and_what_was_said(tmp_path):
    out = folder(tmp_path)
    rescore(out, exports=["nemo"])
    lines = (out / "exports" / "nemo" / "cut_1.json").read_text(encoding="utf-8").splitlines()
    found = json.loads(lines[2])
    assert (found["text"], found["pred_text"]) == (WANTED[2], SAID[2])
    assert (found["audio_filepath"], found["duration"], found["offset"]) == ("2.wav", 1.5, 0.0)
    assert found["accent"] == "x"
    assert "shoal" not in found


def test_trn_files_pair_by_their_ids_and_score_as_the_document_says(tmp_path):
    out = folder(tmp_path)
    scores = rescore(out, exports=["trn"])
    place = out / "exports" / "trn"
    pattern = re.compile(r"(.*?) ?\(([^()\s]+)\)")
    wanted, said = (
        [pattern.fullmatch(line).groups() for line in (place / "normalised" / name).read_text().splitlines()]
        for name in ("ref.trn", "hyp.cut_1.trn")
    )
    assert [name for _, name in wanted] == [name for _, name in said] == [f"a%20b-c00{n}" for n in range(3)]
    wrong = sum(a != b for (a, _), (b, _) in zip(wanted, said, strict=True))
    assert wrong == 2
    assert sum(len(text.split()) for text, _ in wanted) == (
        scores.systems[0].measures["WER"].edits.hits + scores.systems[0].measures["WER"].edits.substitutions
    )
    raw = (place / "raw" / "hyp.cut_1.trn").read_text(encoding="utf-8").splitlines()
    assert raw[2] == "good morning {you} (a%20b-c002)"


def test_trn_files_leave_out_what_no_error_rate_judges(tmp_path):
    out = evaluation(tmp_path / "out", {"full": [output(0, "[laughter]", "ha ha"), output(1, "yes", "yes")]})
    rescore(out, exports=["trn"])
    for name, text in (("ref", "[laughter]"), ("hyp.full", "ha ha")):
        assert (out / f"exports/trn/normalised/{name}.trn").read_text() == "yes (c001-c001)\n"
        assert (out / f"exports/trn/raw/{name}.trn").read_text().startswith(f"{text} (c000-c000)\n")


def test_trn_files_have_spaces_where_characters_are_words(tmp_path):
    out = evaluation(tmp_path / "out", {"full": [output(0, "今天,天气", "今天", lang="zh")]})
    rescore(out, exports=["trn"])
    assert (out / "exports/trn/normalised/ref.trn").read_text(encoding="utf-8") == "今 天 天 气 (c000-c000)\n"
    assert (out / "exports/trn/raw/ref.trn").read_text(encoding="utf-8") == "今天,天气 (c000-c000)\n"


def test_an_unknown_format_is_refused_before_anything_is_scored(tmp_path):
    out = folder(tmp_path)
    before = (out / "scores.json").read_bytes()
    with pytest.raises(UsageError, match=r"unknown format 'stm'.*lm-eval, nemo or trn"):
        rescore(out, exports=["stm"])
    assert (out / "scores.json").read_bytes() == before
    assert formats() == ["lm-eval", "nemo", "trn"]


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")

    def broken():
        with replaced(path) as stream:
            stream.write("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(FileFormatError, match="the disk is full"):
        broken()
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_file_names_are_plain_and_all_different():
    assert file_names(["a/b", "a:b", "..", "deepest-2#2"]) == ["a_b", "a_b_2", "system", "deepest-2_2"]
