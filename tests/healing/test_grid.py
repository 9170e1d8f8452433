"""What healing buys, on a tiny SpeechLLM."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import shoal
import tiny_speech
from shoal import tasks
from shoal.cli import main
from shoal.errors import UsageError
from shoal.healing import grid as grid_module
from shoal.healing.grid import Grid, run_grid
from shoal.healing.settings import HealGridSettings
from shoal.pruning.on_disk import prune
from shoal.schema import Healing, Plan
from shoal.training.settings import Optimisation, RuntimeOptions

DEPTH = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("grid")
    loaded = tiny_speech.loaded(num_hidden_layers=DEPTH)
    loaded.path = place / "nowhere"
    loaded.path.mkdir()
    prune(loaded, tiny_speech.plan(depth=DEPTH), place / "model", verify=False)
    (place / "model" / "shoal-plan.json").unlink()
    tiny_speech.write_clips(place / "train", 8)
    tiny_speech.write_clips(place / "test", 6)
    for layers in ((2,), (2, 3)):
        plan = tiny_speech.plan(*layers, depth=DEPTH, strategy="contiguous")
        Plan.model_validate(plan.model_dump() | {"allow_last": False}).save(place / f"plan{len(layers)}.json")
    return place


def grid_of(folder, out, *, targets=("receiver", "linear", "replace"), **options):
    settings = HealGridSettings(
        targets=targets,
        rank=2,
        alpha=2,
        optimisation=Optimisation(steps=2, clips=2),
        replicates=50,
        how=RuntimeOptions(features=folder / "features"),
        **options,
    )
    return Grid(
        str(folder / "model"),
        [Plan.load(folder / f"plan{count}.json") for count in (1, 2)],
        shoal.read_manifests([str(folder / "train" / "manifest.jsonl")]),
        shoal.read_manifests([str(folder / "test" / "manifest.jsonl")]),
        tasks.get("asr"),
        settings,
        out,
    )


@pytest.fixture(scope="module")
def filled(folder):
    return run_grid(grid_of(folder, folder / "filled"))


def test_every_plan_meets_every_target(filled, folder):
    cells = [(len(cell.plan.layers), cell.target) for cell in filled.cells]
    assert cells == [
        (1, "none"), (1, "receiver"), (1, "linear"), (2, "none"), (2, "receiver"), (2, "linear"), (2, "replace")
    ]  # fmt: skip
    (skipped,) = filled.skipped
    assert "block of one" in skipped
    assert Healing.load(folder / "filled" / "healing.json").cells == filled.cells
    assert filled.data.clips == 6
    assert filled.train_data.clips == 8


def test_a_cell_says_what_it_took_and_what_is_left(filled):
    by_name = {(len(cell.plan.layers), cell.target): cell for cell in filled.cells}
    assert [by_name[2, name].layers for name in ("none", "receiver", "replace")] == [4, 4, 5]
    plain, receiver, linear = (by_name[2, name] for name in ("none", "receiver", "linear"))
    assert plain.parameters == receiver.parameters == linear.parameters < by_name[1, "none"].parameters
    assert receiver.steps == 2
    assert receiver.trained_parameters == 3 * 2 * (32 + 48)
    assert (linear.steps, plain.trained_parameters) == (0, 0)
    assert plain.bought is None
    assert linear.bought is not None
    assert linear.loss is not None


@pytest.mark.usefixtures("filled")
def test_references_without_a_word_are_left_out_and_named(folder, tmp_path, caplog):
    """The outputs of a finished grid, of which one clip turns out to have no word to say."""
    out = tmp_path / "filled"
    shutil.copytree(folder / "filled", out)
    for path in out.glob("cells/*/outputs/full.jsonl"):
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(first), "text": "[laughter]"}), *rest]) + "\n")
    run_grid(grid_of(folder, out))
    (said,) = [record.message for record in caplog.records if "empty once normalised" in record.message]
    assert said.startswith("1 of 6 references is empty once normalised (")


def test_rates_and_their_differences_are_those_of_the_outputs(filled, folder):
    """By hand from the stored outputs."""
    import jiwer

    normalise = tasks.get("asr").normaliser("en")

    def rate(name):
        lines = (folder / "filled" / "cells" / name / "outputs" / "full.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return jiwer.wer([normalise(r["text"]) for r in rows], [normalise(r["pred_text"]) for r in rows])

    full = rate("full")
    none, receiver = rate("without-2-to-3-none"), rate("without-2-to-3-receiver")
    cell = next(c for c in filled.cells if (len(c.plan.layers), c.target) == (2, "receiver"))
    assert filled.baseline.value.value == pytest.approx(full)
    assert cell.score.value.value == pytest.approx(receiver)
    assert cell.score.delta.absolute.value == pytest.approx(receiver - full)
    assert cell.bought.absolute.value == pytest.approx(receiver - none)
    if none > full:
        assert cell.recovered.value == pytest.approx((none - receiver) / (none - full))
    else:
        assert cell.recovered is None


def test_what_is_done_is_not_done_again(filled, folder, monkeypatch):
    def never(*_):
        raise AssertionError("a cell was filled again")

    monkeypatch.setattr(grid_module, "_fill", never)
    monkeypatch.setattr(grid_module, "heal", never)
    wanted = grid_of(folder, folder / "filled", targets=("receiver", "linear"))
    again = run_grid(wanted)
    assert [cell.score for cell in again.cells] == [cell.score for cell in filled.cells if cell.target != "replace"]


def test_cells_of_other_settings_are_not_mixed(filled, folder):
    with pytest.raises(UsageError, match="it holds cells healed with settings"):
        run_grid(grid_of(folder, folder / "filled", dropout=0.5))


def test_nothing_to_compare_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="nothing to compare"):
        run_grid(grid_of(folder, tmp_path, targets=()))


def test_the_command_prints_a_table(filled, folder, capsys):
    arguments = [
        "heal-grid", str(folder / "model"), "--data", str(folder / "train" / "manifest.jsonl"),
        "--test", str(folder / "test" / "manifest.jsonl"), "--plan", str(folder / "plan2.json"),
        "--targets", "linear,receiver", "--steps", "2", "--clips", "2", "--rank", "2", "--replicates", "50",
        "--features", str(folder / "features"), "--out", str(folder / "command"),
    ]  # fmt: skip
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "removed",
        "healed",
        "by",
        "WER",
        "%",
        "gain",
        "from",
        "healing",
        "recovered",
        "%",
        "parameters",
        "fitted",
        "on",
        "steps",
        "seconds",
    ]
    assert lines[1].startswith("nothing")
    assert [line.split()[0] for line in lines[2:5]] == ["2-3"] * 3
    assert "clips" not in lines[2]
    assert all(re.search(r" \d+ clips, \d+ positions ", line) for line in lines[3:5])
    assert lines[-1] == str(folder / "command" / "healing.json")
    assert main([*arguments, "--audit", "x.json"]) == 2
    assert "either --audit or --plan" in capsys.readouterr().err
