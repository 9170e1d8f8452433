"""Tiny random causal LMs of many architectures, for tests that need a real class but no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 99
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention"]


def _llama_like(name: str, *, text: str = "", **extra: Any) -> Callable[[int], PreTrainedModel]:
    def build(depth: int) -> PreTrainedModel:
        values = {key: value(depth) if callable(value) else value for key, value in extra.items()}
        config = getattr(transformers, f"{name}{text}Config")(**{**COMMON, "num_hidden_layers": depth, **values})
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return build


def _alternating(depth: int) -> list[str]:
    """Irregular on purpose: removing a layer must change what its neighbours' index would imply."""
    return [MIXED[index % 3 == 1] for index in range(depth)]


def _opt(depth: int) -> PreTrainedModel:
    config = transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_attention_heads=4,
        num_hidden_layers=depth,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        pad_token_id=0,
    )
    return transformers.OPTForCausalLM(config)


def _gpt2(depth: int) -> PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=depth, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def _gpt_neo(depth: int) -> PreTrainedModel:
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=depth,
        num_heads=4,
        window_size=4,
        attention_types=[[["global", "local"], depth // 2]],
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.GPTNeoForCausalLM(config)


_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "llama": _llama_like("Llama"),
    "qwen2": _llama_like("Qwen2", use_sliding_window=True, sliding_window=4, layer_types=_alternating),
    "qwen3": _llama_like("Qwen3", head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=2),
    "mistral": _llama_like("Mistral", sliding_window=4),
    "gemma2": _llama_like("Gemma2", head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
    "gemma3": _llama_like("Gemma3", text="Text", head_dim=8, sliding_window=4, layer_types=_alternating),
    "phi3": _llama_like("Phi3", sliding_window=4),
    "gpt_neox": _llama_like("GPTNeoX"),
    "granite": _llama_like("Granite", attention_multiplier=0.3, residual_multiplier=0.8),
    "smollm3": _llama_like("SmolLM3", no_rope_layer_interval=3),
    "deepseek_v3": _llama_like(
        "DeepseekV3",
        num_key_value_heads=4,
        first_k_dense_replace=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "qwen3_moe": _llama_like("Qwen3Moe", head_dim=8, decoder_sparse_step=2, mlp_only_layers=[3], **_MOE),
    "opt": _opt,
    "gpt2": _gpt2,
    "gpt_neo": _gpt_neo,
}
"""Architecture → a builder that takes the depth."""


def tiny(name: str, depth: int = 6, *, seed: int = 0) -> PreTrainedModel:
    """A float32 model of `depth` layers in eval mode, with weights large enough for every layer to matter."""
    torch.manual_seed(seed)
    model = BUILDERS[name](depth).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.generation_config.eos_token_id = None
    return model


def prompts(rows: int = 2, length: int = 9, *, padding: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Left-padded `input_ids` and `attention_mask`, (rows, length); the first row has `padding` pads."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    ids[0, :padding], mask[0, :padding] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}
