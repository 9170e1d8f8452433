"""The loop: what a step is, whatever it is cut into, and what is left when it is interrupted."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_training import adapted, sampled_of, student_of
from transformers import TrainingArguments

from shoal.errors import TrainingError, UsageError
from shoal.training import run_folder
from shoal.training.loop import train
from shoal.training.run_folder import last_checkpoint, read_log
from shoal.training.settings import Objective, Optimisation, RuntimeOptions
from shoal.training.step import StepTotals

OPTIMISATION = Optimisation(steps=4, clips=4, lora_lr=1e-2, projector_lr=1e-2, warmup=0.25)


def run(folder, *, student=None, steps=4, how=None, optimisation=OPTIMISATION, work="work", **options):
    student = student or student_of(folder, **options)
    sampled = sampled_of(student.batches, steps)
    result = train(student, sampled, optimisation, folder / work, how=how, settings={"a": 1})
    return student, result


def weights(student):
    return {name: each.detach().clone() for name, each in student.trainable().items()}


def test_training_lowers_the_loss_and_leaves_what_is_frozen(tmp_path):
    loaded = adapted()
    frozen = {name: each.clone() for name, each in loaded.model.named_parameters() if not each.requires_grad}
    student, result = run(tmp_path, student=student_of(tmp_path, loaded=loaded), steps=12)
    assert result.steps == 12
    assert result.losses[-1] < 0.97 * result.losses[0]
    assert result.clips == 48
    for name, each in frozen.items():
        assert torch.equal(each, dict(loaded.model.named_parameters())[name]), name
    assert not student.training


def test_the_first_step_is_what_plain_torch_gives(tmp_path):
    """One step by hand: summed cross-entropy over all tokens, clipped, AdamW at the first rate of the warm-up."""
    optimisation = Optimisation(steps=1, clips=4, lora_lr=1e-2, projector_lr=3e-2, warmup=0.0, schedule="constant")
    student, result = run(tmp_path, steps=1, optimisation=optimisation)
    other = student_of(tmp_path / "other")
    sampled = sampled_of(other.batches, 1)
    inputs = other.batches.inputs(other.loaded, other.batches.collate(sampled.examples[0], sampled.variants[0]))
    states = other.loaded.decoder(**inputs.call).last_hidden_state.flatten(0, 1)[inputs.index]
    logits = other.loaded.model.get_output_embeddings()(states)
    loss = torch.nn.functional.cross_entropy(logits, inputs.tokens)
    loss.backward()
    assert result.losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    named = other.trainable()
    torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
    rates = {name: 1e-2 if ".lora_" in name else 3e-2 for name in named}
    torch.optim.AdamW([{"params": [each], "lr": rates[name]} for name, each in named.items()], weight_decay=0.0).step()
    for name, each in student.trainable().items():
        torch.testing.assert_close(each, named[name], rtol=1e-4, atol=1e-6)


def test_a_step_in_parts_is_the_same_step(tmp_path):
    whole, first = run(tmp_path / "a")
    parts, second = run(tmp_path / "b", how=RuntimeOptions(max_positions=1))
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    for name, each in weights(whole).items():
        torch.testing.assert_close(each, weights(parts)[name], rtol=1e-3, atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_last_bit(tmp_path):
    """Dropout included: what is random in a step is seeded by its number."""
    undisturbed, result = run(tmp_path / "a", steps=6, dropout=0.3, how=RuntimeOptions(save_every=2))
    student = student_of(tmp_path / "b", dropout=0.3)
    stop_at(student, 5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", student=student, steps=6, how=RuntimeOptions(save_every=2))
    again, resumed = run(tmp_path / "b", steps=6, dropout=0.3, how=RuntimeOptions(save_every=2))
    assert resumed.losses == result.losses
    assert resumed.steps == 6
    for name, each in weights(undisturbed).items():
        assert torch.equal(each, weights(again)[name]), name


def stop_at(student, step):
    """Interrupt the run in its `step`-th forward pass."""
    seen = []

    def hook(*_):
        seen.append(1)
        if len(seen) == step:
            raise KeyboardInterrupt

    student.register_forward_pre_hook(hook)


def test_a_finished_run_is_not_run_again(tmp_path):
    first, result = run(tmp_path)
    student = student_of(tmp_path)
    stop_at(student, 1)
    again, resumed = run(tmp_path, student=student)
    assert resumed.losses == result.losses
    for name, each in weights(first).items():
        assert torch.equal(each, weights(again)[name])


def test_a_checkpoint_that_was_being_written_is_not_taken(tmp_path):
    _, result = run(tmp_path, how=RuntimeOptions(save_every=2))
    last = tmp_path / "work" / "checkpoint-4"
    (last / run_folder.MARKER).unlink()
    (last / run_folder.TENSORS).write_bytes(b"half")
    assert last_checkpoint(tmp_path / "work").name == "checkpoint-2"
    assert not last.exists()
    _, again = run(tmp_path, how=RuntimeOptions(save_every=2))
    assert again.losses == result.losses


def test_a_line_of_the_log_that_was_being_written_is_left_out(tmp_path):
    run(tmp_path)
    with (tmp_path / "work" / run_folder.LOG).open("a") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in read_log(tmp_path / "work")] == [1, 2, 3, 4]


def test_a_run_with_other_settings_is_not_taken_up(tmp_path):
    student, _ = run(tmp_path)
    with pytest.raises(UsageError, match="an unfinished run with a 1, not 2"):
        train(student, sampled_of(student.batches), OPTIMISATION, tmp_path / "work", settings={"a": 2})


def test_where_memory_runs_out_parts_are_halved_and_the_step_stays(tmp_path):
    _, result = run(tmp_path / "a")
    student = student_of(tmp_path / "b")
    sizes = []

    def hook(_, args):
        clips = len(student.batches.ints(args[0])["audio_counts"])
        sizes.append(clips)
        if clips > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    student.register_forward_pre_hook(hook)
    _, lowered = run(tmp_path / "b", student=student)
    assert lowered.losses == pytest.approx(result.losses, rel=1e-5)
    assert len(lowered.notes) == 2
    assert "memory ran out at step 1" in lowered.notes[0]
    assert sizes == [4, 2, *[1] * 16]  # tried whole, in two, then clip by clip from then on


def test_a_single_clip_that_does_not_fit_ends_the_run_with_a_word(tmp_path):
    student = student_of(tmp_path)

    def hook(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    student.register_forward_pre_hook(hook)
    with pytest.raises(TrainingError, match=r"memory ran out on a single clip of .*clip"):
        run(tmp_path, student=student)


def test_another_runtime_error_is_not_taken_for_memory(tmp_path):
    student = student_of(tmp_path)

    def hook(*_):
        raise RuntimeError("a bug")

    student.register_forward_pre_hook(hook)
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path, student=student)


def test_a_loss_that_is_not_a_number_names_step_clips_and_checkpoint(tmp_path):
    student = student_of(tmp_path)
    seen = []

    def hook(*_):
        seen.append(1)
        if len(seen) == 4:
            with torch.no_grad():
                next(iter(student.trainable().values())).fill_(float("nan"))

    student.register_forward_pre_hook(hook)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, student=student, steps=6, how=RuntimeOptions(save_every=2))
    sampled = sampled_of(student.batches, 6)
    message = str(caught.value)
    assert "step 4: the loss is nan" in message
    assert all(name in message for name in student.batches.names(sampled.examples[3]))
    assert str(tmp_path / "work" / "checkpoint-2") in message
    assert last_checkpoint(tmp_path / "work").name == "checkpoint-2"


def test_the_log_has_a_line_a_step_with_its_terms(tmp_path):
    seen = []
    student = student_of(tmp_path, objective=Objective())
    train(
        student,
        sampled_of(student.batches),
        OPTIMISATION,
        tmp_path / "work",
        progress=lambda *args: seen.append(args),
    )
    lines = read_log(tmp_path / "work")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["ce"] == line["loss"] for line in lines)
    assert seen[-1] == ("train", 4, 4)
    assert json.loads((tmp_path / "work" / run_folder.SETTINGS).read_text()) == {}


def test_checkpoints_hold_what_is_trained_alone(tmp_path):
    from safetensors.torch import load_file

    student, _ = run(tmp_path)
    held = load_file(tmp_path / "work" / "checkpoint-4" / run_folder.TENSORS)
    assert held.keys() == student.trainable().keys()
    assert len(list((tmp_path / "work").glob("checkpoint-*"))) == 2


def test_prefetching_processes_change_nothing(tmp_path):
    _, first = run(tmp_path / "a")
    _, second = run(tmp_path / "b", how=RuntimeOptions(workers=1))
    assert second.losses == first.losses


def test_terms_come_when_they_are_due():
    objective = Objective(ce=1.0, ctc=0.3, ctc_every=4)
    assert [objective.weights(step)["ctc"] for step in range(5)] == [0.3, 0.0, 0.0, 0.0, 0.3]


def test_a_step_must_have_a_clip_for_each_process(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", 64)
    with pytest.raises(UsageError, match="cannot be shared by 64 processes"):
        run(tmp_path)


def test_dropout_is_in_low_rank_layers_alone(tmp_path):
    student = student_of(tmp_path, dropout=0.5)
    student.train()
    inside = [m for m in student.model.modules() if isinstance(m, torch.nn.Dropout) and m.training]
    assert len(inside) == sum(1 for n, _ in student.named_parameters() if ".lora_A." in n)
    batch = student.batches.collate(np.array([0, 1]), np.array([0, 0]))
    scale = StepTotals(tokens=1.0, clips=2.0)
    torch.manual_seed(0)
    first = student(batch, scale, {"ce": 1.0})["loss"]
    assert float(first) != float(student(batch, scale, {"ce": 1.0})["loss"])
    student.train(False)
    fixed = [float(student(batch, scale, {"ce": 1.0})["loss"]) for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_the_folder_can_be_moved_between_runs(tmp_path):
    _, result = run(tmp_path / "a", steps=4, how=RuntimeOptions(save_every=2))
    shutil.rmtree(tmp_path / "a" / "work" / "checkpoint-4")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a" / "work", tmp_path / "b" / "work")
    _, moved = run(tmp_path / "b", steps=4, how=RuntimeOptions(save_every=2))
    assert moved.losses == result.losses


def test_layers_computed_again_give_the_same_step(tmp_path):
    """Dropout included; and they really are computed again, once in every backward pass."""
    _, first = run(tmp_path / "a", dropout=0.3)
    student, calls = student_of(tmp_path / "b", dropout=0.3), []
    student.loaded.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again, second = run(tmp_path / "b", student=student, how=RuntimeOptions(gradient_checkpointing=True))
    assert second.losses == pytest.approx(first.losses, rel=1e-6)
    assert len(calls) == 2 * 4
    assert not any("forward" in vars(layer) for layer in again.loaded.layers)
