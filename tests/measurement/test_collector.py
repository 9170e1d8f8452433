"""The collector against an independent float64 loop that shares no code with it."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from shoal.decoder.states import recording
from shoal.errors import MeasureError
from shoal.measurement.collector import collect
from shoal.measurement.metrics import metric_slices
from shoal.models.batch import Kind, PreparedBatch
from shoal.schema import SCOPES

DEPTH = 5


def tiny(family: str = "llama") -> torch.nn.Module:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": DEPTH,
        "vocab_size": 64,
        "head_dim": 8,
    }
    if family == "gemma3":
        return Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=4)).eval().double()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval().double()


def utterance(length: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """Token ids and kinds: prompt, audio, prompt, text, as in a SpeechLLM."""
    ids = torch.randint(1, 64, (length,), generator=torch.Generator().manual_seed(seed))
    kinds = [Kind.PROMPT] * 2 + [Kind.AUDIO] * (length - 6) + [Kind.PROMPT] * 2 + [Kind.TEXT] * 2
    return ids, [int(kind) for kind in kinds]


def make_batch(model: torch.nn.Module, items: list[tuple[torch.Tensor, list[int]]], side: str) -> PreparedBatch:
    longest = max(len(ids) for ids, _ in items)
    embeds = torch.zeros(len(items), longest, 32, dtype=torch.float64)
    kinds = torch.zeros(len(items), longest, dtype=torch.uint8)
    tokens = torch.full((len(items), longest), -1)
    for row, (ids, kind) in enumerate(items):
        at = slice(longest - len(ids), longest) if side == "left" else slice(0, len(ids))
        embeds[row, at] = model.get_input_embeddings()(ids).detach()
        kinds[row, at] = torch.tensor(kind, dtype=torch.uint8)
        tokens[row, at] = ids
    return PreparedBatch([f"u{row}" for row in range(len(items))], embeds, kinds, tokens)


def states_of(model: torch.nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """The embedding and the raw output of every layer, each (T, d), for one clip without padding."""
    rows = [model.model.embed_tokens(ids[None])[0].detach()]
    handles = [
        layer.register_forward_hook(lambda _module, _args, out: rows.append(out[0] if out.ndim == 3 else out))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model.model(input_ids=ids[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return rows


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(p * q for p, q in zip(a, b, strict=True))
    return dot / (math.sqrt(math.fsum(p * p for p in a)) * math.sqrt(math.fsum(q * q for q in b)))


def positions_of(kinds: list[int]) -> dict[str, list[int]]:
    return {
        "all": list(range(len(kinds))),
        "audio": [i for i, kind in enumerate(kinds) if kind == 1],
        "prompt": [i for i, kind in enumerate(kinds) if kind == 2],
        "response": [i for i, kind in enumerate(kinds) if kind == 3],
        "last": [max(i for i, kind in enumerate(kinds) if kind in (1, 2))],
    }


def reference(model: torch.nn.Module, items: list[tuple[torch.Tensor, list[int]]]) -> dict[tuple, list[float]]:
    """(utterance, scope, metric) → means, one clip at a time, Python floats, straight from the definition."""
    result: dict[tuple, list[float]] = {}
    for number, (ids, kinds) in enumerate(items):
        rows = [state.tolist() for state in states_of(model, ids)]
        for scope, at in positions_of(kinds).items():
            result[number, scope, "angular"] = [
                sum(math.acos(min(1.0, cosine(rows[start][i], rows[start + n][i]))) for i in at) / len(at) / math.pi
                for n in range(1, DEPTH + 1)
                for start in range(DEPTH - n + 1)
            ]
            result[number, scope, "influence"] = [
                sum(1 - cosine(rows[start][i], rows[start + 1][i]) for i in at) / len(at) for start in range(DEPTH)
            ]
    return result


ITEMS = [utterance(length, seed) for seed, length in enumerate([9, 14, 7, 11])]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 4])
def test_equals_the_definition_in_every_scope(family: str, side: str, size: int) -> None:
    model = tiny(family)
    batches = [make_batch(model, ITEMS[start : start + size], side) for start in range(0, len(ITEMS), size)]
    measured = list(collect(model.model, model.model.layers, batches))
    expected = reference(model, ITEMS)
    for number, item in enumerate(measured):
        for index, scope in enumerate(SCOPES):
            for metric, part in metric_slices(DEPTH).items():
                got = item.sums[index, part] / item.counts[index]
                assert got.tolist() == pytest.approx(expected[number, scope, metric], abs=1e-9)


def test_the_first_boundary_is_the_embedding_and_the_last_is_before_the_final_norm() -> None:
    model = tiny()
    batch = make_batch(model, ITEMS[:1], "right")
    with recording(model.model.layers) as buffer, torch.no_grad():
        buffer.start(batch.attention_mask.bool())
        normed = model.model(inputs_embeds=batch.embeds).last_hidden_state
        states = buffer.take()
    assert torch.equal(states[:, 0], batch.embeds[0])
    assert not torch.allclose(states[:, -1], normed[0])
    assert torch.allclose(model.model.norm(states[:, -1]), normed[0])


def test_hooks_are_gone_afterwards_even_after_a_failure() -> None:
    model = tiny()
    with pytest.raises(RuntimeError), recording(model.model.layers):
        raise RuntimeError
    assert all(not layer._forward_pre_hooks and not layer._forward_hooks for layer in model.model.layers)


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "not finite"), (0.0, "zero")])
def test_a_state_without_direction_is_an_error_that_names_the_clip(value: float, word: str) -> None:
    model = tiny()
    batch = make_batch(model, ITEMS[:2], "right")
    batch.embeds[1, 3] = value
    with pytest.raises(MeasureError, match=f"clip u1: .*{word}"):
        list(collect(model.model, model.model.layers, [batch]))


def test_float32_states_are_measured_in_float64() -> None:
    """A block that turns every state by 1e-5 rad is seen as such; float32 cosines would round it to 0."""
    states = torch.zeros(1, 2, 2, dtype=torch.float32)
    states[0, 0] = torch.tensor([1.0, 0.0])
    states[0, 1] = torch.tensor([1.0, 1e-5])
    from shoal.measurement.collector import block_values

    assert block_values(states)[0, 0].item() == pytest.approx(1e-5 / math.pi, rel=1e-3)
