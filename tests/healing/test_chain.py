"""The heal target `chain` against full forward passes of the pruned model and numpy's least squares, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_linear import DOWN, audio_model, batch_of, biased, plan, speech_batches, states, text_model
from torch import Tensor
from transformers.pytorch_utils import Conv1D

import tiny_speech
from shoal.errors import ModelError, UsageError
from shoal.healing import chain
from shoal.healing.chain import fit_chain
from shoal.healing.linear import apply_linear, fit_linear
from shoal.measurement.replay import NotReplayable
from shoal.models.batch import PreparedBatch
from shoal.models.loading import LoadedModel
from shoal.pruning.in_memory import prune_in_place


def pruned_copy(loaded: LoadedModel, layers: Sequence[int]) -> LoadedModel:
    """The model without `layers`; `loaded` stays as it is."""
    model = prune_in_place(copy.deepcopy(loaded.model), list(layers), family=loaded.family)
    return LoadedModel("pruned", loaded.path, model, None, None, loaded.family, loaded.kind)


def reference(
    loaded: LoadedModel, layers: Sequence[int], batches: Sequence[PreparedBatch], ridge: float, down: str
) -> LoadedModel:
    """The healed model: every layer fitted with what a whole forward pass of the model so far gives."""
    student, depth = pruned_copy(loaded, layers), len(loaded.layers)
    keep = [layer for layer in range(depth) if layer not in layers]
    for number, (layer, target) in enumerate(zip(keep, [*keep[1:], depth], strict=True)):
        if layer < min(layers) - 1:
            continue
        module = student.layers[number].get_submodule(down)
        taken = states(student, batches, {"down": module, "layer": student.layers[number]})
        goal = states(loaded, batches, {"goal": loaded.layers[target - 1]})["goal.out"]
        h = taken["down.in"] if module.bias is None else np.hstack([taken["down.in"], np.ones((len(goal), 1))])
        w = 1 / (goal**2).sum(1)
        lam = ridge * (w[:, None] * h**2).sum(0).mean()
        rows = np.vstack([np.sqrt(w)[:, None] * h, np.sqrt(lam) * np.eye(h.shape[1])])
        due = np.vstack([np.sqrt(w)[:, None] * (goal - taken["layer.out"]), np.zeros((h.shape[1], goal.shape[1]))])
        change = torch.from_numpy(np.linalg.lstsq(rows, due, rcond=None)[0].T)
        flip = isinstance(module, Conv1D)
        with torch.no_grad():
            weight = change[:, : taken["down.in"].shape[1]]
            module.weight += weight.T if flip else weight
            if module.bias is not None:
                module.bias += change[:, -1]
    return student


def healed(loaded: LoadedModel, layers: Sequence[int], tensors: dict[str, Tensor]) -> LoadedModel:
    student = pruned_copy(loaded, layers)
    apply_linear(student.model, tensors)
    return student


def parameters(loaded: LoadedModel) -> dict[str, Tensor]:
    return dict(loaded.model.named_parameters())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "opt", "gpt_neo"])
@pytest.mark.parametrize("layers", [(2, 3), (1, 3), (1, 2, 4)])
def test_every_layer_is_least_squares_on_the_healed_models_own_states(name: str, layers: tuple[int, ...]) -> None:
    loaded = text_model(name)
    batches = [batch_of(loaded), batch_of(loaded, (8, 12), first=4)]
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    tensors, report = fit_chain(loaded, plan(*layers), batches, ridge=1e-2)
    found = parameters(healed(loaded, layers, tensors))
    for key, expected in parameters(reference(loaded, layers, batches, 1e-2, DOWN.get(name, "mlp.down_proj"))).items():
        torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    steps = 6 - len(layers) - (min(layers) - 1)
    assert len(report) == steps
    assert all(fit.error_after <= fit.error_before for fit in report)
    assert all(torch.equal(before[key], value) for key, value in loaded.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_biases_are_fitted_too() -> None:
    loaded = biased()
    batches = [batch_of(loaded)]
    tensors, _ = fit_chain(loaded, plan(2, 3), batches, ridge=1e-2)
    found = parameters(healed(loaded, (2, 3), tensors))
    for key, expected in parameters(reference(loaded, (2, 3), batches, 1e-2, "mlp.down_proj")).items():
        torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_the_first_layer_is_linear_and_it_alone_where_the_last_layers_are_missing() -> None:
    loaded = text_model()
    batches = [batch_of(loaded)]
    linear, _ = fit_linear(loaded, plan(2, 3), batches)
    whole, report = fit_chain(loaded, plan(2, 3), batches)
    assert set(linear) < set(whole)
    assert [note.split(":")[0] for fit in report for note in fit.notes[:1]] == ["layers 2-3", "layer 4", "layer 5"]
    for name, tensor in linear.items():
        torch.testing.assert_close(whole[name], tensor)
    end = tiny_speech.plan(4, 5, depth=6).model_copy(update={"allow_last": True})
    linear, _ = fit_linear(loaded, end, batches)
    whole, _ = fit_chain(loaded, end, batches)
    assert set(linear) == set(whole)


def test_held_out_clips_choose_the_ridge_of_every_layer() -> None:
    loaded = text_model()
    batches, others = [batch_of(loaded)], [batch_of(loaded, (10, 7, 12), first=40)]
    _, chosen = fit_chain(loaded, plan(2, 3), batches, held_out=others, ridge=None)
    assert all(fit.held_out_after is not None and fit.held_out_positions == 29 for fit in chosen)
    tried = {ridge: fit_chain(loaded, plan(2, 3), batches, held_out=others, ridge=ridge)[1][0] for ridge in (0.01, 100)}
    assert chosen[0].held_out_after <= min(fit.held_out_after or 0 for fit in tried.values()) + 1e-12


@pytest.mark.parametrize("side", ["left", "right"])
def test_it_brings_a_speech_llm_nearer_to_the_unpruned_model(side: str, tmp_path) -> None:
    loaded = tiny_speech.loaded()
    loaded.model.double()
    batches = speech_batches(loaded, tmp_path, side=side)
    gone, depth = tiny_speech.plan(1, depth=len(loaded.layers)), len(loaded.layers)
    last = {"last": loaded.layers[depth - 1]}
    goal = states(loaded, batches, last)["last.out"]

    def distance(tensors: dict[str, Tensor]) -> float:
        student = healed(loaded, [1], tensors)
        given = states(student, batches, {"last": student.layers[-1]})["last.out"]
        return float((((given - goal) ** 2).sum(1) / (goal**2).sum(1)).sum())

    plain, linear = distance({}), distance(fit_linear(loaded, gone, batches, ridge=1e-3)[0])
    assert distance(fit_chain(loaded, gone, batches, ridge=1e-3)[0]) < linear < plain


@pytest.mark.parametrize("name", ["Qwen2AudioForConditionalGeneration", "GraniteSpeechForConditionalGeneration"])
def test_audio_llm_classes(name: str, tmp_path) -> None:
    loaded = audio_model(name, tmp_path)
    loaded.model.double()
    batches = speech_batches(loaded, tmp_path)
    tensors, report = fit_chain(loaded, plan(1, depth=4), batches)
    assert len(report) == 3
    assert all(fit.error_after < fit.error_before for fit in report)
    assert len(tensors) == 3


def test_a_layer_behind_the_cut_that_cannot_be_fitted_stays_as_it_is() -> None:
    loaded = text_model()
    shared = loaded.layers[4].mlp.down_proj
    loaded.layers[5].mlp.down_proj = shared
    _, report = fit_chain(loaded, plan(2, 3), [batch_of(loaded)])
    assert [(fit.cut.start, fit.cut.stop) for fit in report] == [(2, 4)]
    with pytest.raises(ModelError, match="shares its down projection"):
        fit_chain(loaded, plan(1, 5).model_copy(update={"allow_last": True}), [batch_of(loaded)])


def test_what_cannot_be_is_refused_in_one_line() -> None:
    loaded = text_model()
    with pytest.raises(ModelError, match="no layer stands before the first one"):
        fit_chain(loaded, plan(0), [batch_of(loaded)])
    with pytest.raises(UsageError, match="unknown fit"):
        fit_chain(loaded, plan(2), [batch_of(loaded)], fit="both")  # type: ignore[arg-type]


def test_layers_that_cannot_be_run_one_by_one_are_refused(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise NotReplayable("its layers pass on more than one residual stream")

    monkeypatch.setattr(chain, "record", refuse)
    loaded = text_model()
    with pytest.raises(ModelError, match="pass on more than one residual stream") as refusal:
        fit_chain(loaded, plan(2), [batch_of(loaded)])
    assert refusal.value.fix == "heal with --target linear"
