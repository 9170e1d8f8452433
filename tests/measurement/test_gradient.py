"""Gradient importance against differences of the loss itself, with gates set by hand, in float64."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import tiny_speech
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.errors import MeasureError
from shoal.measurement.gate_gradients import gate_gradients
from shoal.measurement.importance import ImportanceSums
from shoal.models import families
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel
from tiny_audio import BUILDS
from tiny_models import VOCABULARY, tiny

LENGTHS = (9, 6, 7)
TEXT = 3
QUANTITIES = ("clip-absolute", "squared", "absolute", "signed")
STEP = 1e-5
NEAR = {"rtol": 1e-5, "atol": 1e-6}
Gate = Callable[[Any], AbstractContextManager[None]]
PARTS = {
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt_neox": ("attention", "mlp"),
    "opt": ("self_attn", "fc2"),
}
"""Where the classes' own source code adds attention and MLP, if not under the usual names."""


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """The model in float64, its RMS norms too, which compute in float32 whatever a model is in."""
    for module in model.double().requires_grad_(False).modules():
        if type(module).__name__.endswith("RMSNorm"):
            more = 1 if type(module).__name__.startswith("Gemma") else 0
            eps = getattr(module, "variance_epsilon", None) or module.eps

            def forward(x: Tensor, weight: Tensor = module.weight + more, eps: float = eps) -> Tensor:
                return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

            module.forward = forward
    return model


def text_model(name: str) -> LoadedModel:
    """A tiny text model as `shoal.load` gives it, but exact."""
    model = exact(tiny(name, 3))
    model.generation_config.eos_token_id = [2, 5]
    return LoadedModel("tiny", Path(), model, None, None, families.find(model), "causal_lm")


def batch_of(
    loaded: LoadedModel, lengths: Sequence[int] = LENGTHS, side: str = "left", first: int = 0
) -> PreparedBatch:
    """Clips of a prompt token, audio, and a response of `TEXT` tokens."""
    table, longest = loaded.model.get_input_embeddings(), max(lengths)
    embeds = torch.zeros(len(lengths), longest, table.weight.shape[1], dtype=table.weight.dtype)
    kinds = torch.zeros(len(lengths), longest, dtype=torch.uint8)
    tokens = torch.full((len(lengths), longest), -1)
    for row, length in enumerate(lengths):
        ids = torch.randint(6, VOCABULARY, (length,), generator=torch.Generator().manual_seed(first + row))
        at = slice(longest - length, None) if side == "left" else slice(0, length)
        marks = [Kind.PROMPT, *[Kind.AUDIO] * (length - 1 - TEXT), *[Kind.TEXT] * TEXT]
        kinds[row, at] = torch.tensor(marks, dtype=torch.uint8)
        embeds[row, at] = table(ids).detach()
        tokens[row, at] = ids
    names = [f"u{first + row}" for row in range(len(lengths))]
    return PreparedBatch(names, embeds, kinds, tokens.masked_fill(kinds == Kind.AUDIO, -1))


@torch.no_grad()
def losses(loaded: LoadedModel, batch: PreparedBatch) -> Tensor:
    """(B,) nats over the response and its end, token by token."""
    positions = {} if loaded.family.name == "opt" else {"position_ids": batch.position_ids}
    logits = loaded.lm(
        inputs_embeds=batch.embeds, attention_mask=batch.attention_mask, use_cache=False, **positions
    ).logits
    found = torch.zeros(len(batch.ids), dtype=torch.float64)
    for row in range(len(batch.ids)):
        text = (batch.kinds[row] == Kind.TEXT).nonzero()[:, 0].tolist()
        for at in text:
            found[row] -= logits[row, at - 1].log_softmax(-1)[batch.token_ids[row, at]]
        if loaded.eos_ids:
            ends = sum(logits[row, text[-1]].softmax(-1)[token] for token in loaded.eos_ids)
            found[row] -= torch.log(ends)
    return found


@contextmanager
def part_gate(loaded: LoadedModel, layer: int, name: str, gate: Tensor | float) -> Iterator[None]:
    """What the module `name` of `layer` gives, times `gate` (a number, or one for each position of one clip)."""

    def hook(_: object, __: object, output: Tensor | tuple) -> Tensor | tuple:
        return output * gate if torch.is_tensor(output) else (output[0] * gate, *output[1:])

    handle = getattr(loaded.layers[layer], name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def block_gate(loaded: LoadedModel, layer: int, n: int, gate: Tensor | float) -> Iterator[None]:
    """x_l + g (x_{l+n} - x_l) in the place of x_{l+n}."""
    seen: list[Tensor] = []

    def before(_: object, args: tuple, kwargs: dict) -> None:
        seen[:] = [args[0] if args else kwargs["hidden_states"]]

    def after(_: object, __: object, output: Tensor | tuple) -> Tensor | tuple:
        found = output if torch.is_tensor(output) else output[0]
        gated = seen[0] + gate * (found - seen[0])
        return gated if torch.is_tensor(output) else (gated, *output[1:])

    handles = [
        loaded.layers[layer].register_forward_pre_hook(before, with_kwargs=True),
        loaded.layers[layer + n - 1].register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def slope(loaded: LoadedModel, batch: PreparedBatch, gated: Gate) -> Tensor:
    """-dL/dg at g = 1 for each clip, by the five-point rule, whose error is of order STEP⁴."""
    weights = {-2: 1, -1: -8, 1: 8, 2: -1}
    total = torch.zeros(len(batch.ids), dtype=torch.float64)
    for steps, weight in weights.items():
        with gated(1 + steps * STEP):
            total -= weight * losses(loaded, batch)
    return total / (12 * STEP)


def by_name(found: list[ImportanceSums]) -> dict[tuple[str, str], ImportanceSums]:
    return {(each.part, each.quantity): each for each in found}


def check_quantities(sums: dict[tuple[str, str], ImportanceSums], part: str, column: int, expected: Tensor) -> None:
    """Of a candidate whose gate has these slopes, clip by clip."""
    references = {"signed": expected, "clip-absolute": expected.abs(), "squared": expected**2}
    for quantity, reference in references.items():
        np.testing.assert_allclose(sums[part, quantity].values[:, column], reference, **NEAR)


def check_blocks(loaded: LoadedModel, batch: PreparedBatch) -> None:
    sums = by_name(gate_gradients(loaded, [batch]))
    candidates, depth = sums["layer", "signed"].candidates, len(loaded.layers)
    assert len(candidates) == depth * (depth + 1) // 2
    for column, layers in enumerate(candidates):
        expected = slope(loaded, batch, lambda g, at=layers: block_gate(loaded, at[0], len(at), g))
        check_quantities(sums, "layer", column, expected)


def check_parts(loaded: LoadedModel, batch: PreparedBatch, names: Sequence[str]) -> None:
    sums = by_name(gate_gradients(loaded, [batch]))
    for part, name in zip(("attention", "mlp"), names, strict=True):
        assert sums[part, "signed"].candidates == tuple((layer,) for layer in range(len(loaded.layers)))
        for layer in range(len(loaded.layers)):
            expected = slope(loaded, batch, lambda g, at=layer, n=name: part_gate(loaded, at, n, g))
            check_quantities(sums, part, layer, expected)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "granite", "opt"])
def test_every_quantity_is_made_of_the_slopes_of_the_losses_of_the_clips(name: str) -> None:
    loaded = text_model(name)
    batch = batch_of(loaded, side="right")
    check_blocks(loaded, batch)
    check_parts(loaded, batch, PARTS.get(name, ("self_attn", "mlp")))


def test_so_it_is_of_a_speech_llm(tmp_path: Path) -> None:
    loaded = tiny_speech.loaded()
    exact(loaded.model)
    clips = list(tiny_speech.dataset(tmp_path, 3).clips())
    batch = prepare(loaded, clips, tasks.get("asr"), input="speech", response=True, padding_side="left")
    assert batch.embeds.is_inference()
    check_blocks(loaded, batch)
    check_parts(loaded, batch, ("self_attn", "mlp"))


def test_absolute_adds_up_the_slopes_of_single_positions() -> None:
    loaded = text_model("llama")
    batch = batch_of(loaded, (7,))
    found = by_name(gate_gradients(loaded, [batch]))
    steps = torch.eye(7, dtype=torch.float64)[:, :, None]  # (T, T, 1): a gate that moves at one position

    def total(gated: Gate) -> float:
        ones = [slope(loaded, batch, lambda g, at=at: gated(1 + (g - 1) * at)) for at in steps]
        return float(torch.stack(ones).abs().sum())

    blocks = found["layer", "absolute"]
    for place in (0, 2, 4, 5):
        layers = blocks.candidates[place]
        expected = total(lambda g, at=layers: block_gate(loaded, at[0], len(at), g))
        assert blocks.values[0, place] == pytest.approx(expected, rel=1e-5)
    expected = total(lambda g: part_gate(loaded, 1, "self_attn", g))
    assert found["attention", "absolute"].values[0, 1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "opt", "qwen2", "gpt2"])
def test_a_padded_batch_gives_what_each_clip_gives_alone(name: str, side: str) -> None:
    loaded = text_model(name)
    together = gate_gradients(loaded, [batch_of(loaded, side=side)])
    alone = gate_gradients(loaded, [batch_of(loaded, (n,), first=row) for row, n in enumerate(LENGTHS)])
    for a, b in zip(together, alone, strict=True):
        assert a.utterances == b.utterances == ("u0", "u1", "u2")
        assert a.counts.tolist() == b.counts.tolist() == [TEXT + 1] * 3
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-6)


def test_it_leaves_nothing_behind() -> None:
    loaded = text_model("llama")
    batch = batch_of(loaded)
    before = losses(loaded, batch)
    with torch.inference_mode():
        gate_gradients(loaded, [batch])
    modules = list(loaded.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert not any(each.requires_grad or each.grad is not None for each in loaded.model.parameters())
    assert torch.equal(losses(loaded, batch), before)


def test_scope_picks_the_tokens_of_the_loss() -> None:
    loaded = text_model("llama")
    batch = batch_of(loaded)
    for scope, count in (("last", 1), ("response", TEXT + 1)):
        assert gate_gradients(loaded, [batch], scope=scope)[0].counts.tolist() == [count] * 3


@pytest.mark.parametrize("name", ["WhisperForConditionalGeneration", "Qwen2AudioForConditionalGeneration"])
def test_a_stock_model_is_measured_by_its_own_call_of_its_decoder(name: str, tmp_path: Path) -> None:
    build = BUILDS[name]
    model, processor = build.build(4).requires_grad_(False), build.processor()
    family = families.find(model)
    loaded = LoadedModel(name, tmp_path, model, processor.tokenizer, processor, family, "audio_llm")
    clips = list(tiny_speech.dataset(tmp_path, 3).clips())
    batch = prepare(loaded, clips, tasks.get("asr"), response=True, padding_side="right")
    found = by_name(gate_gradients(loaded, [batch]))
    assert set(found) == {(p, q) for p in ("layer", "attention", "mlp") for q in QUANTITIES}
    assert all(np.isfinite(each.values).all() and each.values.any(0).all() for each in found.values())


def test_layers_that_are_something_else_are_measured_whole(caplog: pytest.LogCaptureFixture) -> None:
    model = BUILDS["Nemotron3_5TranscribeForConditionalGeneration"].build(6)
    loaded = LoadedModel("hybrid", Path(), model.requires_grad_(False), None, None, families.find(model), "audio_llm")
    batch = batch_of(loaded, side="right")
    batch = dataclasses.replace(batch, token_ids=batch.token_ids.clamp(max=90))
    with caplog.at_level(logging.WARNING):
        found = gate_gradients(loaded, [batch])
    assert [each.part for each in found] == ["layer"] * 4
    assert "only whole layers" in caplog.text


def test_a_layer_that_gives_no_number_is_an_error() -> None:
    loaded = text_model("llama")
    loaded.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(MeasureError, match="not finite"):
        gate_gradients(loaded, [batch_of(loaded)])


def test_a_slope_that_is_no_number_is_refused_where_it_is() -> None:
    loaded = text_model("llama")
    # The square root of 0 adds nothing, and has an infinite slope.
    handle = loaded.layers[1].mlp.register_forward_hook(lambda _, __, output: output + (output * 0).abs().sqrt())
    found = by_name(gate_gradients(loaded, [batch_of(loaded)], parts=False))
    handle.remove()
    for quantity in QUANTITIES:
        sums = found["layer", quantity]
        refused = {sums.candidates[place] for place in sums.refused}
        assert (1,) in refused or (0,) in refused
        assert all(np.isnan(sums.means()[place]) for place in sums.refused)
        assert (2,) not in refused
