"""Ablation: replaying gives what removing gives, on every architecture, for every kind of candidate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shoal.errors import MeasureError
from shoal.measurement.ablation_losses import Ablation
from shoal.measurement.replay import TOKENS_A_CALL, NotReplayable, record
from shoal.models import families
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel
from shoal.pruning.in_memory import pruned
from tiny_models import BUILDERS, VOCABULARY, tiny

LENGTHS = (9, 6, 8)
DEPTH = 6
CANDIDATES = [(0,), (2,), (5,), (1, 2), (2, 3, 4), (0, 3), (1, 3, 5)]


def loaded(name: str) -> LoadedModel:
    model = tiny(name, DEPTH)
    return LoadedModel(name, Path(), model, None, None, families.find(model), "causal_lm")


def batch_of(model: nn.Module, side: str = "right", lengths: tuple[int, ...] = LENGTHS) -> PreparedBatch:
    """Rows of PROMPT, AUDIO … and a response of three tokens."""
    longest = max(lengths)
    tokens = torch.full((len(lengths), longest), -1)
    kinds = torch.zeros(len(lengths), longest, dtype=torch.uint8)
    embeds = torch.zeros(len(lengths), longest, model.get_input_embeddings().weight.shape[1])
    for row, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(row))
        at = slice(longest - length, None) if side == "left" else slice(0, length)
        tokens[row, at] = ids
        embeds[row, at] = model.get_input_embeddings()(ids).detach()
        kinds[row, at] = torch.tensor([Kind.PROMPT, *[Kind.AUDIO] * (length - 4), *[Kind.TEXT] * 3])
    return PreparedBatch([f"u{row}" for row in range(len(lengths))], embeds, kinds, tokens)


@torch.no_grad()
def slow_logits(model: nn.Module, batch: PreparedBatch) -> torch.Tensor:
    """The stock forward pass, head and all."""
    takes = {"position_ids": batch.position_ids}
    try:
        output = model(inputs_embeds=batch.embeds, attention_mask=batch.attention_mask, **takes)
    except TypeError:
        output = model(inputs_embeds=batch.embeds, attention_mask=batch.attention_mask)
    return output.logits.double()


def slow_loss(logits: torch.Tensor, batch: PreparedBatch, eos: tuple[int, ...]) -> list[float]:
    """Cross-entropy of the response and its end, row by row, token by token."""
    losses = []
    for row in range(len(batch.ids)):
        total = 0.0
        text = [at for at in range(logits.shape[1]) if batch.kinds[row, at] == Kind.TEXT]
        for at in text:
            share = torch.softmax(logits[row, at - 1], -1)
            total -= float(torch.log(share[batch.token_ids[row, at]]))
        if eos:
            share = torch.softmax(logits[row, text[-1]], -1)
            total -= float(torch.log(sum(share[token] for token in eos)))
        losses.append(total)
    return losses


def slow_kl(full: torch.Tensor, without: torch.Tensor, batch: PreparedBatch) -> list[float]:
    """KL(full ‖ without) at the positions that predict the response or its end."""
    divergences = []
    for row in range(len(batch.ids)):
        text = [at for at in range(full.shape[1]) if batch.kinds[row, at] == Kind.TEXT]
        total = 0.0
        for at in [*(at - 1 for at in text), text[-1]]:
            p, q = torch.softmax(full[row, at], -1), torch.softmax(without[row, at], -1)
            total += float((p * (p / q).log()).sum())
        divergences.append(total)
    return divergences


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_replayed_loss_is_that_of_the_model_without_the_layers(name: str, side: str) -> None:
    model = loaded(name)
    model.__dict__["eos_ids"] = (2, 7)
    batch = batch_of(model.model, side)
    ablation = Ablation(model)
    assert not ablation.refused(CANDIDATES)
    found = ablation.measure(batch, CANDIDATES)
    assert (ablation.method, ablation.why_not) == ("replay", "")
    full = slow_logits(model.model, batch)
    assert found.full == pytest.approx(slow_loss(full, batch, model.eos_ids), rel=1e-4)
    assert found.counts.tolist() == [4, 4, 4]
    for place, layers in enumerate(CANDIDATES):
        with pruned(model.model, layers):
            without = slow_logits(model.model, batch)
        assert found.loss[:, place] == pytest.approx(slow_loss(without, batch, model.eos_ids), rel=1e-4)
        assert found.kl[:, place] == pytest.approx(slow_kl(full, without, batch), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "granite", "opt", "qwen3_moe"])
def test_a_part_that_goes_adds_nothing(name: str, part: str) -> None:
    """The reference zeroes by hooks of its own what the part gives."""
    model = loaded(name)
    model.__dict__["eos_ids"] = ()
    batch = batch_of(model.model)
    ablation = Ablation(model, part=part)
    found = ablation.measure(batch, [(1,), (2, 4)])
    assert ablation.method == "replay"
    for place, layers in enumerate([(1,), (2, 4)]):
        handles = [last_of(model.layers[layer], part).register_forward_hook(nothing) for layer in layers]
        expected = slow_loss(slow_logits(model.model, batch), batch, ())
        for handle in handles:
            handle.remove()
        assert found.loss[:, place] == pytest.approx(expected, rel=1e-4)


def last_of(layer: nn.Module, part: str) -> nn.Module:
    names = {
        "attention": ("self_attn", "attention"),
        "mlp": ("mlp", "fc2"),
    }[part]
    return next(getattr(layer, each) for each in names if hasattr(layer, each))


def nothing(_: nn.Module, __: object, output: object) -> object:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def test_single_layers_cost_half_of_a_run_each() -> None:
    model = loaded("llama")
    ablation = Ablation(model)
    ablation.measure(batch_of(model.model), [(layer,) for layer in range(DEPTH)])
    before = ablation.evaluations
    ablation.measure(batch_of(model.model), [(layer,) for layer in range(DEPTH)])
    clips = len(LENGTHS)
    assert ablation.evaluations - before == clips * (DEPTH + DEPTH * (DEPTH - 1) // 2)


def test_candidates_that_run_a_layer_together_give_what_each_gives_alone(monkeypatch) -> None:
    model = loaded("gemma3")
    batch = batch_of(model.model)
    together = Ablation(model).measure(batch, CANDIDATES)
    monkeypatch.setitem(TOKENS_A_CALL, "cpu", 1)
    alone = Ablation(model).measure(batch, CANDIDATES)
    np.testing.assert_allclose(together.loss, alone.loss, rtol=1e-5)


def test_candidates_that_do_not_fit_in_memory_together_are_taken_in_groups(monkeypatch) -> None:
    model = loaded("llama")
    batch = batch_of(model.model)
    whole = Ablation(model).measure(batch, CANDIDATES)
    monkeypatch.setattr("shoal.measurement.replay.LIVE_BYTES", 1)
    np.testing.assert_allclose(Ablation(model).measure(batch, CANDIDATES).loss, whole.loss, rtol=1e-6)


def test_large_vocabularies_are_looked_at_in_pieces(monkeypatch) -> None:
    model = loaded("llama")
    batch = batch_of(model.model)
    whole = Ablation(model).measure(batch, CANDIDATES)
    monkeypatch.setattr("shoal.decoder.logits.LOGIT_BYTES", 5 * VOCABULARY * 4)
    pieces = Ablation(model).measure(batch, CANDIDATES)
    np.testing.assert_allclose(pieces.loss, whole.loss, rtol=1e-6)
    np.testing.assert_allclose(pieces.kl, whole.kl, rtol=1e-4, atol=1e-6)


def test_something_between_layers_is_noticed_and_layers_are_removed_for_real() -> None:
    model = loaded("llama")
    batch = batch_of(model.model)
    plain = Ablation(model, replay=False).measure(batch, [(1,)])
    forward = model.layers[3].forward
    # A hook that listens after ours sees what the decoder hands on, and changes it.
    handle = model.layers[3].register_forward_pre_hook(lambda _, args: (args[0] + 1.0, *args[1:]))
    with pytest.raises(NotReplayable, match="between layers 2 and 3"):
        record(model, batch)
    ablation = Ablation(model)
    found = ablation.measure(batch, [(1,)])
    handle.remove()
    assert ablation.method == "removal"
    assert "between layers" in ablation.why_not
    assert model.layers[3].forward == forward
    assert not np.allclose(found.loss, plain.loss)


def test_a_layer_that_reads_what_another_left_behind_is_noticed() -> None:
    """Shared keys, say: candidates run one after the other, so it reads what another candidate's run left."""
    model = loaded("llama")
    left: list[torch.Tensor] = []
    handles = [
        model.layers[1].register_forward_hook(lambda _, __, output: left.append(output[:3].mean())),
        model.layers[4].register_forward_hook(lambda _, __, output: output + 5 * left[-1]),
    ]
    batch = batch_of(model.model)
    ablation = Ablation(model)
    found = ablation.measure(batch, [(0,), (2,), (3,)])
    removed = Ablation(model, replay=False).measure(batch, [(0,), (2,), (3,)])
    for handle in handles:
        handle.remove()
    assert ablation.method == "removal"
    assert ablation.why_not == "a replayed loss is not the pruned model's"
    np.testing.assert_allclose(found.loss, removed.loss)


def test_a_candidate_that_ends_in_nan_is_nan_and_the_others_are_not() -> None:
    model = loaded("llama")
    # Without layer 0 the embeddings are tiny, and this layer divides by what it is not used to.
    layer = model.layers[1]
    batch = batch_of(model.model)
    size = float(record(model, batch).states[1].abs().max())
    handle = layer.register_forward_hook(
        lambda _, args, output: output if float(args[0].abs().max()) >= 0.999 * size else output * torch.nan
    )
    found = Ablation(model, replay=False).measure(batch, [(0,), (4,)])
    handle.remove()
    assert np.isnan(found.loss[:, 0]).all()
    assert np.isfinite(found.loss[:, 1]).all()


def test_a_full_model_without_a_finite_loss_is_an_error() -> None:
    model = loaded("llama")
    with torch.no_grad():
        model.layers[2].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(MeasureError, match="loss of the full model is not finite"):
        Ablation(model).measure(batch_of(model.model), [(1,)])


def test_hooks_and_layers_are_as_before() -> None:
    model = loaded("opt")
    Ablation(model, part="mlp").measure(batch_of(model.model), [(1,)])
    for module in model.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
