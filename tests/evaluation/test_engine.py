"""Continuous batching gives the tokens that transformers' own `generate` gives, row by row."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import gemma3, left_padded, llama, prompts, qwen2

from full_run import examples
from shoal.evaluation.engine import Engine, Prompt, decode_state, prompts_of, supported
from shoal.evaluation.engine.run import default_steps
from shoal.evaluation.engine.steps import EagerSteps, GraphSteps
from shoal.pruning.in_memory import pruned
from tiny_models import BUILDERS, tiny

LIMIT = 14
MODELS = {"llama": llama, "qwen2": qwen2, "gemma3": gemma3}


def played_again(function, undo):
    """Stands in for a CUDA graph: the recorded function is called again."""
    for _ in range(2):
        function()
        undo()
    return function


def eager(lm):
    return EagerSteps(lm, at_once=1)


def recorded(lm):
    return GraphSteps(lm, at_once=3, capture=played_again)


@cache
def known(name):
    """A model, nine prompts, and what `generate` says to each alone in `LIMIT` tokens."""
    torch.manual_seed(7)
    model = MODELS[name]().eval()
    asked = prompts(9)
    return model, asked, [said_alone(model, prompt) for prompt in asked]


def said_alone(model, prompt, limit=LIMIT):
    return model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        min_new_tokens=limit,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()


def cut(tokens, eos_ids, limit):
    """What is left of `tokens`, and whether the limit cut it."""
    ends = [place for place, token in enumerate(tokens[:limit]) if token in eos_ids]
    return (tokens[: ends[0]], False) if ends else (tokens[:limit], True)


def decoded(engine, model, asked, limits):
    """By row: tokens and whether they were cut."""
    found = list(engine.run(prompts_of(left_padded(model, asked), limits)))
    assert len({each.row for each in found}) == len(found) == len(asked)
    assert all(each.prefill_seconds > 0 and each.decode_seconds >= 0 for each in found)
    return {each.row: (each.tokens, each.truncated) for each in found}


@pytest.mark.parametrize("make", [eager, recorded])
@pytest.mark.parametrize("name", MODELS)
def test_equals_generate_with_rows_taking_the_place_of_finished_ones(name, make):
    model, asked, alone = known(name)
    eos_ids = {tokens[row + 2] for row, tokens in enumerate(alone)}
    limits = [LIMIT - row % 3 for row in range(9)]
    engine = Engine(model, eos_ids=eos_ids, slots=3, steps=make(model))
    expected = {row: cut(tokens, eos_ids, limit) for row, (tokens, limit) in enumerate(zip(alone, limits, strict=True))}
    assert decoded(engine, model, asked, limits) == expected
    assert len({len(tokens) for tokens, _ in expected.values()}) > 3


@settings(max_examples=examples(30), deadline=None)
@given(data=st.data())
def test_equals_generate_for_any_rows_limits_ends_and_slots(data):
    name = data.draw(st.sampled_from(sorted(MODELS)))
    model, asked, alone = known(name)
    rows = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=12))
    limits = data.draw(st.lists(st.integers(1, LIMIT), min_size=len(rows), max_size=len(rows)))
    eos_ids = data.draw(st.sets(st.sampled_from(sorted({t for said in alone for t in said})), max_size=6))
    slots = data.draw(st.integers(1, 5))
    make = data.draw(st.sampled_from([eager, recorded]))
    with pytest.MonkeyPatch.context() as patch:
        # Narrow, so that columns are moved again and again.
        patch.setattr(decode_state, "COLUMNS", data.draw(st.integers(1, 9)))
        patch.setattr(decode_state, "HEADROOM", {True: 1, False: 2})
        engine = Engine(model, eos_ids=eos_ids, slots=slots, steps=make(model))
        found = decoded(engine, model, [asked[row] for row in rows], limits)
    assert found == {
        place: cut(alone[row], eos_ids, limit) for place, (row, limit) in enumerate(zip(rows, limits, strict=True))
    }


def test_an_engine_is_used_again():
    model, asked, alone = known("gemma3")
    engine = Engine(model, eos_ids=(), slots=2, steps=recorded(model))
    for part in (slice(0, 3), slice(3, 9)):
        found = decoded(engine, model, asked[part], [LIMIT] * len(asked[part]))
        assert [found[row][0] for row in range(len(asked[part]))] == alone[part]


@pytest.mark.parametrize("removed", [[], [1, 2]], ids=["whole", "pruned"])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_architecture_says_what_generate_says(name, removed):
    model = tiny(name)
    generator = torch.Generator().manual_seed(5)
    asked = [torch.randint(3, 99, (1, length), generator=generator) for length in (2, 9, 12, 5, 7)]
    steps = [eager, recorded] if default_steps_are_recorded(model) else [eager]
    with pruned(model, removed), torch.inference_mode():
        alone = [said_alone(model, ids[0].tolist(), 6) for ids in asked]
        for make in steps:
            engine = Engine(model, eos_ids=(), slots=2, steps=make(model))
            embedded = [Prompt(model.get_input_embeddings()(ids)[0], 6) for ids in asked]
            assert {each.row: each.tokens for each in engine.run(embedded)} == dict(enumerate(alone))


def default_steps_are_recorded(model):
    """Whether the class says that its forward pass can be recorded."""
    return model._can_compile_fullgraph


def test_a_step_is_for_rows_that_need_it_only():
    model, asked, _ = known("llama")
    ran = []

    class Watched(EagerSteps):
        def run(self, state, rows, count):
            ran.append(rows)
            return super().run(state, rows, count)

    limits = [14, 2, 2, 2, 2, 2, 5, 3, 2]
    engine = Engine(model, eos_ids=(), slots=3, steps=Watched(model, at_once=1))
    decoded(engine, model, asked, limits)
    assert sum(ran) == sum(limits) - len(limits)  # the first token is the prefill's
    assert max(ran) == 3


def test_half_precision_decodes():
    _, asked, _ = known("qwen2")
    half = qwen2().eval().to(torch.bfloat16)
    found = decoded(Engine(half, eos_ids=(), slots=4), half, asked, [5] * 9)
    assert {len(tokens) for tokens, _ in found.values()} == {5}


def test_an_end_token_at_once_gives_no_tokens_and_is_not_a_cut():
    model, asked, _ = known("llama")
    found = decoded(Engine(model, eos_ids=range(97), slots=2), model, asked, [9] * 9)
    assert set(map(str, found.values())) == {"([], False)"}


def test_no_rows_and_bad_limits():
    model, asked, _ = known("llama")
    engine = Engine(model, eos_ids=(), slots=2)
    assert list(engine.run([])) == []
    with pytest.raises(ValueError, match="limit"):
        list(engine.run(prompts_of(left_padded(model, asked[:1]), [0])))
    with pytest.raises(ValueError, match="slot"):
        Engine(model, eos_ids=(), slots=0)


# Graphs


def test_a_recorded_step_touches_only_tensors_that_stay():
    model, asked, alone = known("gemma3")
    seen = []

    def watch(function, undo):

        def play():
            held = [layer.keys for layer in engine._state.cache.layers]
            held += [engine._state.mask, engine._state.tokens, engine._state.positions]
            seen.append([(id(tensor), tensor.data_ptr()) for tensor in held])
            function()
            assert [(id(tensor), tensor.data_ptr()) for tensor in held] == seen[-1]

        return play

    engine = Engine(model, eos_ids=(), slots=4, steps=GraphSteps(model, at_once=3, capture=watch))
    found = decoded(engine, model, asked[:4], [LIMIT] * 4)
    assert [found[row][0] for row in range(4)] == alone[:4]
    assert len(seen) == LIMIT - 1
    assert all(each == seen[0] for each in seen)


def test_each_number_of_rows_and_width_is_recorded_once():
    model, asked, alone = known("llama")
    recordings = []

    def count(function, undo):
        recordings.append(function)
        return played_again(function, undo)

    engine = Engine(model, eos_ids=(), slots=4, steps=GraphSteps(model, at_once=3, capture=count))
    limits = [LIMIT, 2, 3, 3, LIMIT, 2, 2, 2, 2]
    found = decoded(engine, model, asked, limits)
    assert [found[row][0] for row in range(9)] == [said[:n] for said, n in zip(alone, limits, strict=True)]
    assert len(recordings) == 3  # for 4, 2 and 1 rows


def test_what_cannot_be_recorded_is_run_as_it_is():
    model, asked, alone = known("qwen2")

    def refuse(function, undo):
        function()  # left undone
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = Engine(model, eos_ids=(), slots=2, steps=GraphSteps(model, at_once=2, capture=refuse))
    found = decoded(engine, model, asked, [LIMIT] * 9)
    assert [found[row][0] for row in range(9)] == alone


# Memory


@pytest.mark.parametrize("make", [eager, recorded])
@pytest.mark.parametrize("calls", [(0,), (4,), (1, 9, 10)], ids=["prefill", "decode", "again"])
def test_out_of_memory_halves_the_slots_and_loses_and_repeats_nothing(monkeypatch, calls, make):
    model, asked, alone = known("llama")
    real, count = model.forward, []

    def forward(*args, **kwargs):
        count.append(0)
        if len(count) - 1 in calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    limits = [LIMIT, 3, 5, LIMIT, 2, 4, LIMIT, 1, 6]
    engine = Engine(model, eos_ids=(), slots=8, steps=make(model))
    found = decoded(engine, model, asked, limits)
    assert [found[row][0] for row in range(9)] == [said[:n] for said, n in zip(alone, limits, strict=True)]
    assert engine.slots == 8 >> len(calls)


def test_memory_that_is_short_for_one_row_is_an_error(monkeypatch):
    model, asked, _ = known("llama")

    def forward(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        decoded(Engine(model, eos_ids=(), slots=4), model, asked, [3] * 9)


def test_other_errors_pass_and_leave_the_engine_fit_for_use():
    model, asked, alone = known("llama")
    engine = Engine(model, eos_ids=(), slots=2, steps=eager(model))
    rows = engine.run(prompts_of(left_padded(model, asked), [LIMIT] * 9))
    next(rows)
    rows.close()
    found = decoded(engine, model, asked, [LIMIT] * 9)
    assert [found[row][0] for row in range(9)] == alone


# What it is for


def test_layers_that_share_keys_or_attend_in_chunks_are_not_for_it():
    shared = transformers.Gemma3nForCausalLM(
        transformers.Gemma3nTextConfig(
            vocab_size=99,
            vocab_size_per_layer_input=99,
            hidden_size=16,
            hidden_size_per_layer_input=4,
            intermediate_size=16,
            num_hidden_layers=5,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            num_kv_shared_layers=2,
            layer_types=["sliding_attention", "full_attention", *["sliding_attention"] * 2, "full_attention"],
            laurel_rank=2,
            altup_num_inputs=2,
            activation_sparsity_pattern=None,
        )
    )
    assert not supported(shared)
    chunked = llama()
    chunked.config.attention_chunk_size = 8
    assert not supported(chunked)
    assert all(supported(make()) for make in MODELS.values())


def test_plain_steps_are_the_default_without_cuda():
    model, *_ = known("llama")
    assert isinstance(default_steps(model, torch.device("cpu")), EagerSteps)
