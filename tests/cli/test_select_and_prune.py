"""`shoal select` and `shoal prune`: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import shoal
from shoal.cli import run as command_line
from shoal.errors import FileFormatError, ModelError, PlanError, UsageError
from shoal.pruning.settings import PruneSettings
from shoal.schema import Audit, BestBlock, Estimate, InputAudit, ModelInfo, Plan, Provenance, ScopeAudit
from tiny_models import VOCABULARY, tiny

DEPTH = 6


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> str:
        assert command_line([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny checkpoint in bfloat16 with a tokeniser."""
    folder = tmp_path_factory.mktemp("model")
    tiny("llama", DEPTH).bfloat16().save_pretrained(folder)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))).save_pretrained(folder)
    return folder


def audit(fingerprint: str = "") -> Audit:
    triangle = [[0.1 + 0.01 * (l + n) for l in range(DEPTH - n + 1)] for n in range(1, DEPTH + 1)]  # noqa: E741
    triangle[1][2] = 0.01
    distance = Estimate(value=0.01, low=0.008, high=0.02)
    best = [BestBlock(n=2, layer=2, distance=distance, selection_frequency=0.93, confidence_set=[0, 1, 2])]
    scope = ScopeAudit(
        positions=9,
        utterances=2,
        angular=triangle,
        influence=[0.5] * DEPTH,
        best=best,
        best_keeping_last=best,
    )
    return Audit(
        provenance=Provenance(shoal="0"),
        model=ModelInfo(
            ref="org/model",
            kind="causal_lm",
            class_name="M",
            family="causal_lm",
            depth=DEPTH,
            hidden_size=8,
            fingerprint=fingerprint,
        ),
        data={"manifests": [], "clips": 2, "seconds": 1.0},
        task="asr",
        inputs={"text": InputAudit(input="text", scopes={"all": scope})},
        replicates=10,
    )


def test_select_prints_the_list_and_the_range_and_writes_both_files(run, tmp_path):
    audit().save(tmp_path / "audit.json")
    out = run("select", tmp_path, "--layers", "33%", "--out", tmp_path / "p.json", "--mergekit", tmp_path / "m.yaml")
    assert "remove 2 of 6 layers of org/model (contiguous): 2,3" in out
    assert "caution: these clips cannot tell it from the blocks that begin at 0–1" in out
    assert "[2, 4)" in out
    assert "0.0100 [0.0080, 0.0200]" in out
    assert "93%" in out
    assert f"next: shoal evaluate org/model --plan {tmp_path / 'p.json'}, to see what it costs" in out
    plan = Plan.load(tmp_path / "p.json")
    assert (plan.layers, plan.source.path) == ([2, 3], str(tmp_path / "audit.json"))
    ranges = [part["sources"][0]["layer_range"] for part in yaml.safe_load((tmp_path / "m.yaml").read_text())["slices"]]
    assert ranges == [[0, 2], [4, 6]]


def test_select_prints_the_plan_for_machines(run, tmp_path):
    audit().save(tmp_path / "audit.json")
    out = run("select", tmp_path / "audit.json", "--layers", "2", "--out", tmp_path / "p.json", "--json")
    assert json.loads(out)["layers"] == [2, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--layers", "9"],
        ["--layers", "x"],
        ["--layers", "1", "--strategy", "y"],
        ["--layers", "1", "--scope", "z"],
    ],
)
def test_select_refuses_and_writes_nothing(run, tmp_path, arguments):
    audit().save(tmp_path / "audit.json")
    with pytest.raises(UsageError):
        run("select", tmp_path, *arguments, "--out", tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()


def test_select_refuses_what_is_no_audit(run, tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        run("select", tmp_path, "--layers", "1")


def test_prune_writes_a_verified_checkpoint_in_the_precision_it_found(run, tmp_path, model):
    out = run("prune", model, "--layers-list", "3,1", "--out", tmp_path / "out")
    assert "removed layers 1,3 of 6" in out
    assert "verified logits" in out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert config["dtype"] == "bfloat16"
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


def test_a_finished_prune_is_not_done_again_contradicted_or_lost(run, tmp_path, model, monkeypatch, capsys):
    out = tmp_path / "out"
    first = run("prune", model, "--layers-list", "1,3", "--out", out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr("shoal.models.loading.load_model", lambda *_, **__: pytest.fail("loaded again"))
        for again in (["3,1"], ["1,3", "--how", "disk"], ["1,3", "--dtype", "bfloat16"]):
            assert command_line(["prune", str(model), "--layers-list", *again, "--out", str(out)]) == 0
            printed = capsys.readouterr()
            assert "nothing left to do" in printed.err
            assert printed.out == first
        for other, difference in (
            (["1"], r"removed layers \[1, 3\], not \[1\]"),
            (["1,3", "--dtype", "float32"], 'dtype "bfloat16", not "float32"'),
        ):
            with pytest.raises(UsageError, match=f"it holds a checkpoint pruned with {difference}; .*--force"):
                run("prune", model, "--layers-list", *other, "--out", out)
        shutil.copytree(model, tmp_path / "other")
        with pytest.raises(UsageError, match=r"pruned with model .*, not .*other"):
            run("prune", tmp_path / "other", "--layers-list", "1,3", "--out", out)
    loaded = shoal.load(str(model), dtype="stored")
    shoal.prune(loaded, Plan.load(out / "shoal-plan.json"), out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    assert "removed layers 1 of 6" in run("prune", model, "--layers-list", "1", "--out", out, "--force")


def test_a_folder_that_pruning_did_not_make_is_not_replaced(run, tmp_path, model):
    shutil.copytree(model, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        run("prune", model, "--layers-list", "1", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("12-15", (12, 13, 14, 15)),
        ("12:16", (12, 13, 14, 15)),
        ("3, 12 - 13,20:21", (3, 12, 13, 20)),
        ("7", (7,)),
    ],
)
def test_a_list_of_layers_may_have_ranges(text, layers):
    assert PruneSettings.of(None, {"layers_list": text}).layers_list == layers


@pytest.mark.parametrize("text", ["5-3", "5:5", "1-99999999", "1-2-3", "1--3"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--layers-list"):
        PruneSettings.of(None, {"layers_list": text})


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_a_model_without_a_tokenizer_is_pruned(run, tmp_path, how):
    tiny("qwen2", DEPTH).save_pretrained(tmp_path / "bare")
    out = run("prune", tmp_path / "bare", "--layers-list", "1-2", "--how", how, "--out", tmp_path / "out")
    assert "removed layers 1,2 of 6" in out
    assert "verified logits" in out
    assert not list((tmp_path / "out").glob("tokenizer*"))
    with pytest.raises(ModelError, match=r"no tokenizer that can be loaded.*cannot be fed"):
        shoal.load(str(tmp_path / "bare")).check_fed()


def test_what_cannot_be_verified_is_refused_before_it_is_copied(run, tmp_path, model, monkeypatch):
    def refuse(*_: object) -> None:
        raise ModelError("cannot be run", where="model")

    monkeypatch.setattr("shoal.pruning.probe.probe", refuse)
    monkeypatch.setattr("shoal.pruning.sharded.write_file", lambda *_: pytest.fail("copied"))
    with pytest.raises(ModelError, match="cannot be run"):
        run("prune", model, "--layers-list", "1", "--how", "disk", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prune_refuses_a_plan_from_an_audit_of_other_weights(run, tmp_path, model):
    audit("another").save(tmp_path / "audit.json")
    run("select", tmp_path, "--layers", "2", "--out", tmp_path / "p.json")
    with pytest.raises(PlanError, match="other weights"):
        run("prune", model, "--plan", tmp_path / "p.json", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], UsageError),
        (["--plan", "p.json", "--layers-list", "1"], UsageError),
        (["--layers-list", "one"], UsageError),
        (["--layers-list", ""], UsageError),
        (["--layers-list", "6"], PlanError),
        (["--layers-list", "5"], PlanError),
        (["--layers-list", "1,1"], PlanError),
        (["--plan", "missing.json"], PlanError),
    ],
)
def test_prune_refuses_in_one_line_and_writes_nothing(run, tmp_path, model, arguments, error):
    with pytest.raises(error) as caught:
        run("prune", model, *arguments, "--out", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
