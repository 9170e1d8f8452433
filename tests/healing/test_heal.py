"""Healing from end to end on a tiny SpeechLLM; the contract that every target keeps."""

from __future__ import annotations

import json

import pytest
import torch

import shoal
import tiny_speech
from shoal import tasks
from shoal.errors import InputError, ModelError, PlanError, TrainingError, UsageError
from shoal.healing import run, targets
from shoal.healing.cuts import cuts_of, layers_behind
from shoal.healing.run import stored_dtype
from shoal.pruning.in_memory import prune_in_place
from shoal.pruning.on_disk import prune
from shoal.schema import HealRecord, Plan
from shoal.training.batches import examples_of, make_batches
from shoal.training.settings import Objective, Optimisation, RuntimeOptions
from shoal.training.step import ModelWithLoss, StepTotals, relative_distance, run_decoder

DEPTH = 6
OPTIMISATION = Optimisation(steps=3, clips=3, lora_lr=1e-2, projector_lr=1e-2, full_lr=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The unpruned model, a plan over it and the pruned checkpoint, as Shoal writes them."""
    place = tmp_path_factory.mktemp("heal")
    loaded = tiny_speech.loaded(num_hidden_layers=DEPTH)
    loaded.path = place / "nowhere"
    full = place / "full"
    empty = tiny_speech.plan(depth=DEPTH)
    (place / "nowhere").mkdir()
    prune(loaded, empty, full, verify=False)
    (full / "shoal-plan.json").unlink()
    original = shoal.load(str(full))
    plan = Plan.model_validate(
        tiny_speech.plan(2, 3, depth=DEPTH).model_dump() | {"model_ref": str(full), "allow_last": False}
    )
    prune(original, plan, place / "pruned", verify=False)
    plan.save(place / "plan.json")
    tiny_speech.write_clips(place / "clips", 12)
    return place


def data_of(folder):
    return shoal.read_manifests([str(folder / "clips" / "manifest.jsonl")])


def job_of(folder, target, **options):
    chosen = {
        "target": target,
        "rank": 2,
        "alpha": 2,
        "dropout": 0.0,
        "optimisation": OPTIMISATION,
        "how": RuntimeOptions(features=folder / "features"),
    }
    return {"data": data_of(folder), **chosen, **options}


TRAINED = {
    "receiver": lambda name: ".layers.2.mlp." in name and ".lora_" in name,
    "projector": lambda name: name.startswith("projector."),
    "decoder": lambda name: ".layers." in name and ".lora_" in name,
    "joint": lambda name: name.startswith("projector.") or (".layers.2.mlp." in name and ".lora_" in name),
    "joint-decoder": lambda name: name.startswith("projector.") or ".lora_" in name,
    "head": lambda name: any(part in name for part in (".layers.1.", ".layers.2.", ".layers.3.", "embed_tokens")),
    "replace": lambda name: ".layers.2." in name,
    "linear": lambda name: name == "decoder.model.layers.1.mlp.down_proj.weight",
    "chain": lambda name: name in [f"decoder.model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2, 3)],
}
"""What each target may change in the model without layers 2 and 3 of 6."""


def test_every_target_is_in_the_contract():
    assert TRAINED.keys() == targets.TARGETS.keys()


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_target_changes_what_it_says_and_nothing_else(folder, name):
    pruned = shoal.load(str(folder / "pruned"))
    healed = shoal.heal(pruned, **job_of(folder, name))
    start = shoal.load(str(folder / "full"))
    prune_in_place(start.model, healed.plan or Plan.load(folder / "plan.json"))
    before = dict(start.model.named_parameters())
    changed = {
        new
        for new, each in healed.loaded.model.named_parameters()
        if (old := new.replace(".base_layer", "")) not in before or not torch.equal(each, before[old])
    }
    assert changed
    assert all(TRAINED[name](each) for each in changed), changed
    record = healed.record
    assert record.target == name
    assert record.trained_parameters > 0
    assert record.steps == (0 if name in ("linear", "chain") else 3)
    assert record.loss_before is not None
    assert record.loss_after is not None
    assert record.data.clips == 11  # one of twelve is held out
    assert len(healed.loaded.layers) == (5 if name == "replace" else 4)
    assert (healed.plan is not None) == (name == "replace")


def test_a_healed_checkpoint_is_whole_and_says_what_happened(folder, tmp_path):
    healed = shoal.heal(shoal.load(str(folder / "pruned")), **job_of(folder, "joint", out=tmp_path / "healed"))
    assert healed.folder == tmp_path / "healed"
    again = shoal.load(str(tmp_path / "healed"))
    assert again.info().removed_layers == [2, 3]
    record = HealRecord.load(tmp_path / "healed" / "shoal-heal.json")
    assert record == healed.record
    batches = make_batches(again, examples_of(data_of(folder), tasks.get("asr"))[:3], features=folder / "features")
    import numpy as np

    every = np.arange(3)
    ours, theirs = (
        run_decoder(model, batches.inputs(model, batches.collate(every, np.zeros_like(every))), (), whole=True)[1]
        for model in (healed.loaded, again)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not (tmp_path / ".healed.healing").exists()


def test_pruning_and_healing_in_one_go_is_the_same(folder, tmp_path):
    """MODEL --plan: the plan is carried out in memory, and lies in the folder afterwards."""
    plan = Plan.load(folder / "plan.json")
    first = shoal.heal(shoal.load(str(folder / "pruned")), **job_of(folder, "receiver"))
    second = shoal.heal(
        shoal.load(str(folder / "full")), **job_of(folder, "receiver", plan=plan, out=tmp_path / "healed")
    )
    assert first.record.loss_after == pytest.approx(second.record.loss_after, rel=1e-5)
    assert shoal.load(str(tmp_path / "healed")).info().removed_layers == [2, 3]


def test_replace_puts_a_layer_back_that_gives_the_state_behind_the_block(folder, tmp_path):
    long = Optimisation(steps=30, clips=4, full_lr=1e-2)
    healed = shoal.heal(
        shoal.load(str(folder / "pruned")),
        **job_of(folder, "replace", optimisation=long, out=tmp_path / "healed", force=True),  # the words get worse
    )
    assert healed.plan.layers == [3]
    again = shoal.load(str(tmp_path / "healed"))
    assert (len(again.layers), again.info().removed_layers) == (5, [3])
    teacher = shoal.load(str(folder / "full"))
    plain = shoal.load(str(folder / "full"))
    prune_in_place(plain.model, [3])
    assert behind(again, teacher, folder) < 0.8 * behind(plain, teacher, folder)


def behind(student, teacher, folder):
    """Relative distance of the states behind the cut, over all clips."""
    import numpy as np

    batches = make_batches(student, examples_of(data_of(folder), tasks.get("asr")), features=folder / "features")
    batch = batches.collate(np.arange(12), np.zeros(12, np.int64))
    with torch.no_grad():
        inputs = batches.inputs(student, batch)
        (ours,), _ = run_decoder(student, inputs, [3], whole=False)
        (theirs,), _ = run_decoder(teacher, batches.inputs(teacher, batch), [4], whole=False)
    return float(relative_distance(ours, theirs, inputs.real).mean())


def test_distillation_draws_to_the_teacher(folder):
    objective = Objective(ce=0.0, kl=1.0, hidden=0.5)
    long = Optimisation(steps=25, clips=4, lora_lr=1e-2)
    job = job_of(folder, "decoder", objective=objective, optimisation=long)
    healed = shoal.heal(shoal.load(str(folder / "pruned")), **job)
    assert healed.record.teacher == str(folder / "full")
    plain = shoal.load(str(folder / "pruned"))
    teacher = shoal.load(str(folder / "full"))
    after, before = (divergence(model, teacher, folder) for model in (healed.loaded, plain))
    assert after < 0.9 * before


def divergence(student, teacher, folder):
    import numpy as np

    batches = make_batches(student, examples_of(data_of(folder), tasks.get("asr")), features=folder / "features")
    module = ModelWithLoss(student, batches, Objective(), teacher=teacher)
    batch = batches.collate(np.arange(12), np.zeros(12, np.int64))
    return float(module(batch, StepTotals(1.0, 1.0), {"kl": 1.0})["kl"])


def test_terms_of_the_loss_against_plain_torch(folder):
    import numpy as np

    teacher, student = shoal.load(str(folder / "full")), shoal.load(str(folder / "pruned"))
    batches = make_batches(student, examples_of(data_of(folder), tasks.get("asr")), features=folder / "features")
    pairs = layers_behind(cuts_of(Plan.load(folder / "plan.json")), 4)
    assert pairs == [(2, 4)]
    module = ModelWithLoss(student, batches, Objective(temperature=2.0), teacher=teacher, cuts=pairs)
    batch = batches.collate(np.array([1, 4]), np.zeros(2, np.int64))
    found = module(batch, StepTotals(tokens=10.0, clips=2.0), {"ce": 1.0, "kl": 0.5, "hidden": 2.0})
    inputs = batches.inputs(student, batch)
    logits, states = [], []
    for model in (student, teacher):
        call = {**inputs.call, "attention_mask": inputs.real.long()}
        out = model.model.decoder(**call, output_hidden_states=True)
        logits.append(out.logits.flatten(0, 1)[inputs.index].double())
        states.append(out.hidden_states)
    ours, theirs = (each / 2 for each in logits)
    kl = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum() * 4 / 10
    ce = torch.nn.functional.cross_entropy(logits[0], inputs.tokens, reduction="sum") / 10
    hidden = 0.0
    for clip in range(2):
        real = inputs.real[clip]
        mine, other = states[0][2][clip][real], states[1][4][clip][real]
        hidden += float(((mine - other).norm(dim=-1) ** 2 / other.norm(dim=-1) ** 2).mean()) / 2
    assert float(found["ce"]) == pytest.approx(float(ce), rel=1e-4)
    assert float(found["kl"]) == pytest.approx(float(kl), rel=1e-4)
    assert float(found["hidden"]) == pytest.approx(hidden, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(ce + 0.5 * kl) + 2 * hidden, rel=1e-4)


def test_a_start_from_the_closed_form(folder):
    job = job_of(folder, "receiver", start="linear")
    healed = shoal.heal(shoal.load(str(folder / "pruned")), **job)
    assert any("linear over layers 2-3" in note for note in healed.record.notes)
    name = "decoder.model.layers.1.mlp.down_proj.weight"
    plain = shoal.load(str(folder / "pruned")).model.get_parameter(name)
    assert not torch.equal(healed.loaded.model.get_parameter(name), plain)


@pytest.mark.parametrize("target", ["receiver", "joint", "replace", "linear"])
def test_without_a_cut_some_targets_make_no_sense(folder, target):
    with pytest.raises(PlanError, match="no layer is missing"):
        shoal.heal(shoal.load(str(folder / "full")), **job_of(folder, target))


def test_targets_that_need_no_cut_heal_any_model(folder):
    healed = shoal.heal(shoal.load(str(folder / "full")), **job_of(folder, "projector"))
    assert healed.record.steps == 3


def test_what_cannot_be_is_refused_in_one_line(folder, tmp_path):
    pruned = shoal.load(str(folder / "pruned"))
    with pytest.raises(UsageError, match="unknown target 'heart'"):
        shoal.heal(pruned, **job_of(folder, "heart"))
    with pytest.raises(UsageError, match="adapters do not hold"):
        shoal.heal(pruned, **job_of(folder, "head", save="adapters"))
    with pytest.raises(UsageError, match="nothing to learn"):
        shoal.heal(pruned, **job_of(folder, "receiver", objective=Objective(ce=0.0)))
    with pytest.raises(UsageError, match="not empty"):
        shoal.heal(pruned, **job_of(folder, "receiver", out=folder / "full"))
    other = shoal.load(str(folder / "pruned"))
    with pytest.raises(ModelError, match="has 4 layers"):
        shoal.heal(other, **job_of(folder, "linear", teacher=str(folder / "pruned")))
    one = tiny_speech.plan(2, depth=DEPTH)
    with pytest.raises(PlanError, match="block of one"):
        shoal.heal(shoal.load(str(folder / "full")), **job_of(folder, "replace", plan=one))
    with pytest.raises(InputError, match=r"no such|cannot"):
        shoal.heal(other, **job_of(folder, "linear", teacher=str(tmp_path / "gone")))
    assert list(tmp_path.iterdir()) == []


def test_the_command_heals_and_says_so(folder, tmp_path, capsys, monkeypatch):
    from shoal.cli import main

    arguments = [
        "heal", str(folder / "pruned"), "--data", str(folder / "clips" / "manifest.jsonl"),
        "--target", "receiver", "--steps", "2", "--clips", "2", "--rank", "2",
        "--features", str(folder / "features"), "--out", str(tmp_path / "healed"), "--json",
    ]  # fmt: skip
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"] == 2
    assert record["target"] == "receiver"
    # Again: it is done, and nothing is trained.
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["provenance"] == record["provenance"]
    assert main(arguments[:-1]) == 0
    again = capsys.readouterr()
    assert "nothing left to do: this checkpoint is healed\n" in again.err
    assert "\nverified " in again.out
    assert again.out.splitlines()[-1] == str(tmp_path / "healed")
    assert "parameters fitted on 4 clips, " in again.out
    # What is refused is refused before the model is loaded.
    monkeypatch.setattr(shoal, "load", lambda *_, **__: pytest.fail("nothing to load a model for"))
    assert main([*arguments[:-3], "--out", str(folder / "full")]) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    assert main([*arguments[:-3], "--out", str(folder / "pruned"), "--force"]) == 2
    assert "this is the model's own folder" in capsys.readouterr().err
    assert main([*arguments[:-1], "--steps", "3"]) == 2
    assert capsys.readouterr().err.endswith(
        "it holds a checkpoint healed with optimisation.steps 2, not 3; choose another with --out, or replace it "
        "with --force\n"
    )


@pytest.mark.parametrize("case", ["receiver", "replace", "plan", "adapters"])
def test_healing_again_gives_what_is_finished(folder, tmp_path, monkeypatch, case):
    """In Python as by the command; also where layers were removed, or put back, on the way."""
    options = {
        "target": "replace" if case == "replace" else "receiver",
        "optimisation": OPTIMISATION,
        "rank": 2,
        "plan": Plan.load(folder / "plan.json") if case == "plan" else None,
        "save": "adapters" if case == "adapters" else "merged",
        "how": RuntimeOptions(features=folder / "features"),
        "force": case == "replace",  # it learns states, and the words get worse
    }
    start, out = folder / ("full" if case == "plan" else "pruned"), tmp_path / "healed"
    first = shoal.heal(shoal.load(str(start)), data_of(folder), out=out, **options)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("it was trained already"))
    again = shoal.heal(shoal.load(str(start)), data_of(folder), out=out, **options)
    assert again.record == first.record
    assert again.folder == out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert len(again.loaded.layers) == len(first.loaded.layers)
    assert (first.finished_before, again.finished_before) == (False, True)
    with pytest.raises(UsageError, match=r"healed: it holds a checkpoint healed with alpha 2.0, not 3.0; choose"):
        shoal.heal(shoal.load(str(start)), data_of(folder), out=out, **(options | {"rank": 3, "force": False}))


def test_what_is_worse_on_other_clips_is_written_only_by_force(folder, tmp_path):
    """A learning rate that destroys the model."""
    harmful = {"optimisation": Optimisation(steps=3, clips=3, lora_lr=2.0), "out": tmp_path / "healed"}
    with pytest.raises(
        TrainingError, match=r"healed: the loss on 1 clip that it was not healed on rose from .*--force"
    ):
        shoal.heal(shoal.load(str(folder / "pruned")), **job_of(folder, "decoder", **harmful))
    assert not (tmp_path / "healed").exists()
    forced = shoal.heal(shoal.load(str(folder / "pruned")), **job_of(folder, "decoder", force=True, **harmful))
    assert forced.folder == tmp_path / "healed"
    assert forced.record.notes[-1].startswith("warning: the loss on 1 clip that it was not healed on rose from ")


def test_records_say_on_how_much_was_fitted(folder):
    trained = shoal.heal(shoal.load(str(folder / "pruned")), **job_of(folder, "receiver")).record
    told = []
    job = job_of(folder, "linear", progress=lambda *step: told.append(step))
    fitted = shoal.heal(shoal.load(str(folder / "pruned")), **job).record
    assert told.count(("loss", 1, 1)) == 2
    assert [step for step in told if step[0] == "fit"] == [("fit", done, 11) for done in (0, 8, 9, 11)]
    assert 3 <= trained.fitted_clips <= 9  # three steps of three clips
    assert trained.fitted_clips < trained.fitted_positions < fitted.fitted_positions
    assert fitted.fitted_clips == 9  # of eleven, every fifth is held out
    assert trained.loss_clips == fitted.loss_clips == 1
    assert f"{fitted.fitted_positions} positions of the fit" in fitted.notes[0]
    assert fitted.notes[0].endswith("(9 clips, held out 2 clips)")


def test_what_a_checkpoint_is_stored_in(tmp_path):
    assert stored_dtype(tmp_path) is None
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert stored_dtype(tmp_path) == torch.bfloat16
