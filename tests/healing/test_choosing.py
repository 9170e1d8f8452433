"""`heal --layers`: the block is chosen by what healing leaves, against healing every block for real."""

from __future__ import annotations

import copy

import pytest
import torch
from test_linear import audio_model

import shoal
import tiny_speech
from shoal import tasks
from shoal.decoder.batches import prepared_batches
from shoal.decoder.logits import losses_at
from shoal.decoder.loss_targets import targets_of
from shoal.decoder.states import decoder_arguments, last_states
from shoal.errors import UsageError
from shoal.healing import choosing
from shoal.healing.choosing import choose_healed, healed_blocks
from shoal.healing.linear import apply_linear, fit_linear
from shoal.healing.settings import LinearSettings
from shoal.models.loading import LoadedModel
from shoal.pruning.in_memory import prune_in_place
from shoal.schema import Plan
from shoal.training.settings import RuntimeOptions

ASR = tasks.get("asr")
DEPTH = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tiny_speech.dataset(tmp_path_factory.mktemp("clips"), 12)


@pytest.fixture
def model():
    loaded = tiny_speech.loaded(num_hidden_layers=DEPTH)
    loaded.model.double()
    return loaded


def halves(clips):
    rows = list(clips.rows)
    return clips.only(rows[:7]), clips.only(rows[7:])


@torch.no_grad()
def really_healed(loaded, layers, fit, judge) -> float:
    """The loss of a copy that is healed and pruned for good, one clip at a time."""
    plan = tiny_speech.plan(*layers, depth=len(loaded.layers))
    tensors, _ = fit_linear(loaded, plan, prepared_batches(loaded, fit, ASR, "speech", 8), ridge=0.1)
    model = prune_in_place(copy.deepcopy(loaded.model), plan, family=loaded.family)
    apply_linear(model, tensors)
    student = LoadedModel("", loaded.path, model, loaded.tokenizer, loaded.processor, loaded.family, loaded.kind)
    total, tokens = 0.0, 0
    for batch in prepared_batches(student, judge, ASR, "speech", 1):
        targets = targets_of(batch, "response", loaded.eos_ids)
        output = student.decoder(**decoder_arguments(student.decoder, batch), use_cache=False)
        states = last_states(output)[targets.rows, targets.positions]
        total += float(losses_at(student, states, targets.tokens).sum())
        tokens += len(targets.tokens)
    return total / tokens


@pytest.mark.parametrize("size", [1, 2])
def test_every_block_is_judged_as_if_it_were_really_healed(model, clips, size):
    fit, judge = halves(clips)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    found = healed_blocks(model, fit, judge, ASR, size, input="speech", settings=LinearSettings(ridge=0.1))
    assert [block.layers for block in found] == [list(range(s, s + size)) for s in range(1, DEPTH - size)]
    for block in found:
        assert block.loss == pytest.approx(really_healed(model, block.layers, fit, judge), rel=1e-6)
    assert all(torch.equal(before[name], value) for name, value in model.model.state_dict().items())
    best = min(found, key=lambda block: block.loss)
    plan = choose_healed(model, fit, judge, ASR, size, settings=LinearSettings(ridge=0.1))
    assert (plan.layers, plan.strategy) == (best.layers, "healed")
    assert f"layers {best.layers[0]}-{best.layers[-1]} {best.loss:.3f}" in plan.note


def test_little_memory_takes_more_passes_and_gives_the_same(model, clips, monkeypatch):
    fit, judge = halves(clips)
    settings = LinearSettings(ridge=0.1)
    once = healed_blocks(model, fit, judge, ASR, 2, input="speech", settings=settings)
    monkeypatch.setattr(choosing, "free_memory", lambda: 1)
    assert [block.loss for block in healed_blocks(model, fit, judge, ASR, 2, input="speech", settings=settings)] == (
        pytest.approx([block.loss for block in once])
    )


def test_stock_classes(tmp_path, clips):
    loaded = audio_model("Qwen2AudioForConditionalGeneration", tmp_path, depth=5)
    fit, judge = halves(clips)
    assert choose_healed(loaded, fit, judge, ASR, 2).layers in ([1, 2], [2, 3])


def test_heal_prunes_and_heals_in_one_go_and_finds_itself_finished(tmp_path):
    full = tmp_path / "full"
    tiny_speech.saved(full)
    clips = tiny_speech.dataset(tmp_path / "clips", 20)
    how = {"target": "chain", "layers": "1", "out": tmp_path / "healed", "force": False}
    how["how"] = RuntimeOptions(features=tmp_path / "features")
    try:
        healed = shoal.heal(shoal.load(str(full)), clips, **how)
    except shoal.errors.TrainingError:  # a random model may be worse for it
        healed = shoal.heal(shoal.load(str(full)), clips, **(how | {"force": True}))
    assert healed.plan is not None
    assert healed.plan.strategy == "healed"
    assert Plan.load(tmp_path / "healed" / "shoal-plan.json").note.startswith("chosen by the loss that linear healing")
    again = shoal.heal(shoal.load(str(full)), clips, **how)
    assert again.finished_before
    with pytest.raises(UsageError):
        shoal.heal(shoal.load(str(full)), clips, **(how | {"layers": "2"}))


def test_sizes_that_make_no_sense_are_refused(model, clips):
    fit, judge = halves(clips)
    for size in (0, 5, 6):
        with pytest.raises(UsageError, match="no block of"):
            choose_healed(model, fit, judge, ASR, size)
    with pytest.raises(UsageError, match="a plan says itself"):
        shoal.heal(model, clips, target="linear", layers="2", plan=tiny_speech.plan(2, depth=DEPTH))
