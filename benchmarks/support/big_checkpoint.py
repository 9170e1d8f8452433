"""A random checkpoint of Llama's shape at full size, written without ever being in memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np

DONE = "benchmark-shape.json"
"""Written last, so that a folder without it is not whole."""
BLOCK = 8 * 2**20
"""Values in the block of random numbers of which all tensors are made."""
BYTES = 2
"""Of a bf16 value."""

Tensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """Of a Llama; the defaults are Llama-3.1-8B."""

    layers: int = 32
    hidden: int = 4096
    intermediate: int = 14336
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 128256

    def tensors(self) -> Iterator[Tensor]:
        """Name and shape of every tensor, in the order in which checkpoints have them."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        kv = self.hidden // self.heads * self.kv_heads
        parts = {
            "input_layernorm": (self.hidden,),
            "mlp.down_proj": (self.hidden, self.intermediate),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "post_attention_layernorm": (self.hidden,),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
        }
        for layer in range(self.layers):
            for part, shape in parts.items():
                yield f"model.layers.{layer}.{part}.weight", shape
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(bytes_of(shape) for _, shape in self.tensors())


def bytes_of(shape: Sequence[int]) -> int:
    """Of a bf16 tensor."""
    return BYTES * prod(shape)


def split(tensors: Sequence[Tensor], largest: int) -> list[list[Tensor]]:
    """Fill files of at most `largest` bytes, in order; a tensor that is larger has one of its own."""
    files: list[list[Tensor]] = [[]]
    room = largest
    for name, shape in tensors:
        if files[-1] and bytes_of(shape) > room:
            files.append([])
            room = largest
        files[-1].append((name, shape))
        room -= bytes_of(shape)
    return files


def write_checkpoint(folder: Path, shape: Shape, *, shard: int) -> None:
    """Write the checkpoint unless it is there already: shards of at most `shard` bytes, index and configs."""
    if _is_done(folder, shape):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    block = random_block()
    files = split(list(shape.tensors()), shard)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_shard(folder / name, tensors, block, first=len(weight_map))
        weight_map |= dict.fromkeys((tensor for tensor, _ in tensors), name)
    index = {"metadata": {"total_size": shape.size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    _write_configs(folder, shape)
    (folder / DONE).write_text(json.dumps(asdict(shape)))


def random_block(size: int = BLOCK) -> np.ndarray:
    """Normal numbers, standard deviation 0.02, as the upper halves of float32 values: bf16, (size,) uint16."""
    values = np.random.default_rng(0).normal(0, 0.02, size).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_shard(path: Path, tensors: Sequence[Tensor], block: np.ndarray, *, first: int) -> None:
    """One safetensors file; tensor k of the model begins at another place of `block`, so that all differ."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [at, at := at + bytes_of(shape)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (_, shape) in enumerate(tensors, start=first):
            for part in tensor_parts(block, number, prod(shape)):
                file.write(part.tobytes())
        file.flush()
        os.fsync(file.fileno())


def tensor_parts(block: np.ndarray, number: int, size: int) -> Iterator[np.ndarray]:
    """The `size` values of tensor `number`: the block over and over, from a place of its own."""
    at = number * 104729 % len(block)
    while size:
        part = block[at : at + size]
        yield part
        size, at = size - len(part), 0


def _is_done(folder: Path, shape: Shape) -> bool:
    try:
        return bool(json.loads((folder / DONE).read_text()) == asdict(shape))
    except (OSError, ValueError):
        return False


def _write_configs(folder: Path, shape: Shape) -> None:
    from transformers import GenerationConfig, LlamaConfig

    from support.family_models import save_tokenizer

    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        max_position_embeddings=131072,
    )
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    save_tokenizer(folder, 100)
