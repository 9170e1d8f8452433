"""GGUF → the plain Hugging Face class and tokenizer.

transformers dequantises GGUF, but marks what it loaded as quantised, and such a model cannot be saved (5.23).
So the plain class is built again from the config and filled strictly. Two things that transformers leaves out
are put back: the original's splitting of digits or its Unicode normalisation, and the end tokens GGUF has no
key for. The config is compared with the file's header.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import WeightsError
from shoal.models.catalogue import DType

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

VERSION = 1
"""Raise it when the output changes: cached folders of another version are made again."""

FILE = "model.gguf"

Fields = Mapping[str, Any]
"""GGUF key → value."""

_SHAPE: Mapping[str, str] = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""GGUF key after the architecture → config field; a key that the file does not have is not compared."""

_EXTRA_EOS: Mapping[str, tuple[str, ...]] = {"qwen2": ("<|endoftext|>",)}
"""Tokens that also end a response in the generation config of the original; GGUF has room for one only."""


def convert(payload: Path, out: Path, dtype: DType = "float32") -> None:
    """Write a plain Hugging Face folder.

    Args:
        payload: a folder with `model.gguf`.
        out: an existing, empty folder.
        dtype: of the stored weights; the dequantised values are exact in float32 only.

    Raises:
        WeightsError: not GGUF, an architecture transformers does not know, or a config unlike the file.
    """
    with _parsed_once():
        fields = read_fields(payload / FILE)
        loaded = _load(payload, dtype)
        config = plain_config(loaded.config)
        check_config(fields, config)
        tokenizer = plain_tokenizer(payload, fields)
    model = rebuild(loaded, config)
    model.generation_config = generation_config(fields, tokenizer)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let all who read a file share one reader.

    transformers parses the header for the config, for the weights and for the tokenizer. Each time takes longer than
    the weights do: a vocabulary is a million slices, and a slice of a `memmap` costs several times that of an array.
    """
    import gguf
    import numpy as np

    original: Any = gguf.GGUFReader

    class ArrayReader(original):
        data: Any

        def _get(self, *args: Any, **options: Any) -> Any:
            self.data = np.asarray(self.data)
            return super()._get(*args, **options)

    shared = cache(ArrayReader)
    gguf.GGUFReader = lambda path: shared(str(path))
    try:
        yield
    finally:
        gguf.GGUFReader = original


def read_fields(path: Path) -> dict[str, Any]:
    """The file's key-value header, without the token lists.

    Raises:
        WeightsError: not a whole GGUF file.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise WeightsError(f"not a whole GGUF file ({error})", where=str(path)) from None
    lists = ("tokens", "token_type", "merges", "scores")
    return {
        key: field.contents()
        for key, field in reader.fields.items()
        if key.removeprefix("tokenizer.ggml.") not in lists
    }


def plain_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config without the mark of quantisation, floats rounded back from float32 to what was meant."""
    values = config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "dtype"):
        values.pop(key, None)
    # The original's 1e-05 comes out of the file's float32 as 9.999999747378752e-06.
    values["rms_norm_eps"] = float(f"{values['rms_norm_eps']:.6g}")
    return type(config).from_dict(values)


def check_config(fields: Fields, config: PreTrainedConfig) -> None:
    """Compare what transformers made of the header with the header.

    Raises:
        WeightsError: a value differs.
    """
    architecture = fields["general.architecture"]
    for key, name in _SHAPE.items():
        expected = fields.get(f"{architecture}.{key}")
        if expected is not None:
            _check(key, expected, getattr(config, name, None))
    theta = fields.get(f"{architecture}.rope.freq_base")
    if theta is not None:
        _check("rope.freq_base", theta, _rope_theta(config))


def _check(key: str, expected: float, actual: float | None) -> None:
    if actual is None or abs(actual - expected) > 1e-5 * abs(expected):
        raise WeightsError(f"the GGUF file says {key} = {expected}, the config made from it says {actual}")


def _rope_theta(config: PreTrainedConfig) -> float | None:
    """The base of the rotary embedding; where layers differ, that of the full-attention layers."""
    parameters: dict[str, Any] = config.rope_parameters
    parameters = parameters.get("full_attention", parameters)
    return parameters.get("rope_theta")


def rebuild(loaded: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the plain class that shares the loaded weights.

    Raises:
        RuntimeError: a weight is missing or left over.
    """
    import torch

    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    model.tie_weights()
    model.config.dtype = loaded.dtype
    return model


def plain_tokenizer(payload: Path, fields: Fields) -> PreTrainedTokenizerFast:
    """The tokenizer transformers reads from the file, with the original's text preparation.

    GGUF only names that preparation (`tokenizer.ggml.pre`); `_PREPARE` says what each name means.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(payload, gguf_file=FILE)
    prepare = _PREPARE.get(fields.get("tokenizer.ggml.pre", "default"))
    if prepare is not None:
        prepare(tokenizer)
    tokenizer.model_max_length = fields[f"{fields['general.architecture']}.context_length"]
    return tokenizer


def _prepare_smollm(tokenizer: PreTrainedTokenizerFast) -> None:
    """Every digit alone, then GPT-2's pieces (llama.cpp: LLAMA_VOCAB_PRE_TYPE_SMOLLM)."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _prepare_qwen2(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()


_PREPARE: Mapping[str, Callable[[PreTrainedTokenizerFast], None]] = {"smollm": _prepare_smollm, "qwen2": _prepare_qwen2}


def generation_config(fields: Fields, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy, ending at the file's end token and at those the original names besides."""
    from transformers import GenerationConfig

    vocabulary = tokenizer.get_vocab()
    also = _EXTRA_EOS.get(fields["general.architecture"], ())
    ends = [fields["tokenizer.ggml.eos_token_id"], *(vocabulary[token] for token in also if token in vocabulary)]
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        bos_token_id=fields.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def _load(payload: Path, dtype: DType) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        # The bar of the dequantisation listens to no setting of transformers.
        with redirect_stderr(io.StringIO()):
            return AutoModelForCausalLM.from_pretrained(
                payload, gguf_file=FILE, dtype=getattr(torch, dtype), **_unpacked()
            )
    except ValueError as error:
        raise WeightsError(f"transformers cannot read this GGUF file ({error})", where=str(payload)) from None


def _unpacked() -> dict[str, Any]:
    """Where the `kernels` package is installed, transformers may leave the weights packed unless told."""
    import transformers

    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}
