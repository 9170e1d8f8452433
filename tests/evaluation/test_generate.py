"""Decoding a batch gives the tokens that transformers' own `generate` gives."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from shoal.evaluation.generate import greedy
from shoal.models.batch import Kind, PreparedBatch

COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# A wide initialisation makes random models say varied things, so that equal tokens mean something.
WIDE = {"initializer_range": 0.5}


def llama():
    return LlamaForCausalLM(LlamaConfig(**COMMON, **WIDE))


def qwen2():
    return Qwen2ForCausalLM(Qwen2Config(**COMMON, **WIDE))


def gemma3():
    """Three sliding layers with a window shorter than the prompts, and a full one."""
    types = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
    config = Gemma3TextConfig(
        **COMMON, **WIDE, head_dim=8, sliding_window=6, layer_types=types, tie_word_embeddings=False
    )
    return Gemma3ForCausalLM(config)


@pytest.fixture(params=[llama, qwen2, gemma3], ids=lambda make: make.__name__)
def model(request):
    torch.manual_seed(7)
    return request.param().eval()


def left_padded(model, prompts):
    """Prompts of token ids as a prepared batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), -1)
    kinds = torch.full((len(prompts), longest), int(Kind.PAD), dtype=torch.uint8)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        kinds[row, longest - len(prompt) :] = int(Kind.PROMPT)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids.clamp(min=0)) * (kinds != Kind.PAD)[..., None]
    return PreparedBatch([str(row) for row in range(len(prompts))], embeds, kinds, ids)


def prompts(count=6, seed=3):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (count,), generator=generator).tolist()
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]


def generated(model, prompt, eos_ids, limit):
    """One prompt alone through `generate`: tokens without the end token."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=list(eos_ids),
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(out) if token in eos_ids]
    return out[: ends[0]] if ends else out


def test_equals_generate_token_for_token_with_rows_leaving_at_different_steps(model):
    asked = prompts()
    free = greedy(model, left_padded(model, asked), eos_ids=(), max_new_tokens=24).tokens
    eos_ids = {tokens[3 * row] for row, tokens in enumerate(free)}
    decoded = greedy(model, left_padded(model, asked), eos_ids=eos_ids, max_new_tokens=24)
    assert decoded.tokens == [generated(model, prompt, eos_ids, 24) for prompt in asked]
    assert len({len(tokens) for tokens in decoded.tokens}) > 2
    assert decoded.truncated == [len(tokens) == 24 for tokens in decoded.tokens]


def test_equals_batched_generate(model):
    batch = left_padded(model, prompts())
    decoded = greedy(model, batch, eos_ids=(), max_new_tokens=12)
    expected = model.generate(
        inputs_embeds=batch.embeds,
        attention_mask=batch.attention_mask,
        do_sample=False,
        max_new_tokens=12,
        min_new_tokens=12,
        pad_token_id=0,
        eos_token_id=-1,
    )
    assert decoded.tokens == expected.tolist()


def test_each_row_keeps_its_own_limit(model):
    asked = prompts(count=3)
    decoded = greedy(model, left_padded(model, asked), eos_ids=(), max_new_tokens=[1, 5, 3])
    assert [len(tokens) for tokens in decoded.tokens] == [1, 5, 3]
    assert decoded.truncated == [True, True, True]
    assert decoded.tokens == [generated(model, p, (-1,), n) for p, n in zip(asked, [1, 5, 3], strict=True)]


def test_an_end_token_at_once_gives_no_tokens_and_is_not_a_cut(model):
    decoded = greedy(model, left_padded(model, prompts(2)), eos_ids=range(97), max_new_tokens=9)
    assert decoded.tokens == [[], []]
    assert decoded.truncated == [False, False]


def test_both_timings_are_positive_and_half_precision_works(model):
    half = model.to(torch.bfloat16)
    decoded = greedy(half, left_padded(half, prompts(2)), eos_ids=(), max_new_tokens=4)
    assert decoded.prefill_seconds > 0
    assert decoded.decode_seconds > 0


def test_right_padding_and_bad_limits_are_refused():
    torch.manual_seed(0)
    model = llama().eval()
    batch = left_padded(model, [[3, 4, 5], [6]])
    flipped = PreparedBatch(batch.ids, batch.embeds, batch.kinds.flip(1), batch.token_ids)
    with pytest.raises(ValueError, match="left"):
        greedy(model, flipped, eos_ids=(), max_new_tokens=3)
    with pytest.raises(ValueError, match="max_new_tokens"):
        greedy(model, batch, eos_ids=(), max_new_tokens=[3])
    with pytest.raises(ValueError, match="max_new_tokens"):
        greedy(model, batch, eos_ids=(), max_new_tokens=0)
