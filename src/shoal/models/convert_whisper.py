"""CTranslate2 Whisper → the plain `WhisperForConditionalGeneration`, encoder and decoder.

What CTranslate2 fuses is taken apart again (`linear_0` of self-attention holds q, k and v; `linear_1` of
cross-attention k and v; Whisper's keys have no bias, so that part of theirs is zero), the rest is renamed.
Everything a stock `WhisperProcessor` and `generate()` need is written beside the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import WeightsError
from shoal.models import ctranslate2_file
from shoal.models.catalogue import DType
from shoal.models.ctranslate2_file import Array, CTranslate2File

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

VERSION = 1
"""Raise it when the output changes: cached folders of another version are made again."""

_LAYER_NORM = (("gamma", "weight"), ("beta", "bias"))
_LINEAR = (("weight", "weight"), ("bias", "bias"))
_TIMESTAMPS = 1501
"""`<|0.00|>` … `<|30.00|>` in steps of 0.02 s stand at the end of Whisper's vocabulary."""


def convert(payload: Path, out: Path, dtype: DType = "float32") -> None:
    """Write a Hugging Face Whisper folder.

    Args:
        payload: a folder with CTranslate2's `model.bin`, `config.json` and `tokenizer.json`.
        out: an existing, empty folder.
        dtype: of the stored weights.

    Raises:
        WeightsError: the payload is not a Whisper model, or does not fit the stock class exactly.
    """
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    source = ctranslate2_file.read(payload / "model.bin")
    if source.spec != "WhisperSpec":
        raise WeightsError(f"this is a {source.spec}, not a Whisper model", where=str(payload / "model.bin"))
    tokenizer = whisper_tokenizer(payload / "tokenizer.json", vocab_size(source))
    settings = json.loads((payload / "config.json").read_text("utf-8"))
    config = whisper_config(source, tokenizer)
    config.begin_suppress_tokens = settings.get("suppress_ids_begin", [])

    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in tensors(source).items()}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = generation_config(settings, tokenizer, config)
    model.save_pretrained(out)
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    extractor.save_pretrained(out)
    WhisperProcessor(extractor, tokenizer).save_pretrained(out)


def vocab_size(source: CTranslate2File) -> int:
    """Rows of the embedding: 51864 for the English-only models, 51865 or 51866 for the multilingual ones."""
    return int(source.variables["decoder/embeddings/weight"].shape[0])


def whisper_config(source: CTranslate2File, tokenizer: WhisperTokenizer) -> WhisperConfig:
    """The shapes from the variables, the special ids from the tokenizer."""
    from transformers import WhisperConfig

    hidden, mels, _ = source.variables["encoder/conv1/weight"].shape
    end, start = _ids(tokenizer, "<|endoftext|>", "<|startoftranscript|>")
    return WhisperConfig(
        vocab_size=vocab_size(source),
        d_model=hidden,
        num_mel_bins=mels,
        encoder_layers=source.count("encoder/layer_"),
        decoder_layers=source.count("decoder/layer_"),
        encoder_attention_heads=source.number("encoder/num_heads"),
        decoder_attention_heads=source.number("decoder/num_heads"),
        encoder_ffn_dim=source.variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=source.variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=source.variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=source.variables["decoder/position_encodings/encodings"].shape[0],
        # As upstream: English-only models have <|startoftranscript|> here, multilingual ones <|endoftext|>.
        bos_token_id=end if is_multilingual(tokenizer) else start,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        architectures=["WhisperForConditionalGeneration"],
    )


def generation_config(settings: dict[str, Any], tokenizer: WhisperTokenizer, config: WhisperConfig) -> GenerationConfig:
    """Greedy, with the suppressed tokens, alignment heads and language ids that Whisper's code looks for."""
    from transformers import GenerationConfig

    no_timestamps, previous = _ids(tokenizer, "<|notimestamps|>", "<|startofprev|>")
    extra: dict[str, Any] = {}
    if is_multilingual(tokenizer):
        extra["lang_to_id"] = _languages(tokenizer)
        transcribe, translate = _ids(tokenizer, "<|transcribe|>", "<|translate|>")
        extra["task_to_id"] = {"transcribe": transcribe, "translate": translate}
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_length=config.max_target_positions,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        suppress_tokens=settings.get("suppress_ids", []),
        begin_suppress_tokens=settings.get("suppress_ids_begin", []),
        alignment_heads=settings.get("alignment_heads"),
        is_multilingual=is_multilingual(tokenizer),
        no_timestamps_token_id=no_timestamps,
        prev_sot_token_id=previous,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        **extra,
    )


def whisper_tokenizer(path: Path, size: int) -> WhisperTokenizer:
    """The stock tokenizer from `tokenizer.json`, with the timestamp tokens named up to `size` ids.

    Raises:
        WeightsError: the file's tokens and the timestamps do not fill the vocabulary.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import WhisperTokenizer

    backend = Tokenizer.from_file(str(path))
    if backend.get_vocab_size() not in (size, size - _TIMESTAMPS):
        raise WeightsError(f"{backend.get_vocab_size()} tokens do not fit a vocabulary of {size}", where=str(path))
    model = json.loads(backend.to_str())["model"]
    tokenizer = WhisperTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    added = backend.get_added_tokens_decoder()
    special = [token for _, token in sorted(added.items()) if token.special]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    stamps = [f"<|{step * 0.02:.2f}|>" for step in range(_TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(stamp, normalized=False, special=False) for stamp in stamps])
    tokenizer.model_max_length = 448
    _check_ids(backend.get_vocab(), tokenizer, size)
    return tokenizer


def _check_ids(expected: dict[str, int], tokenizer: WhisperTokenizer, size: int) -> None:
    vocabulary = tokenizer.get_vocab()
    wrong = [token for token, number in expected.items() if vocabulary.get(token) != number]
    if wrong or len(tokenizer) != size:
        raise WeightsError(f"the tokenizer's ids changed on the way ({len(wrong)} tokens, size {len(tokenizer)})")


def is_multilingual(tokenizer: WhisperTokenizer) -> bool:
    """Whether it knows more than English: such vocabularies have one plain token more (50257)."""
    return _ids(tokenizer, "<|endoftext|>")[0] != 50256


def _languages(tokenizer: WhisperTokenizer) -> dict[str, int]:
    """`<|en|>` → id, for the tokens between the start and the task tokens."""
    start, translate = _ids(tokenizer, "<|startoftranscript|>", "<|translate|>")
    numbers = list(range(start + 1, translate))
    return dict(zip(tokenizer.convert_ids_to_tokens(numbers), numbers, strict=True))


def _ids(tokenizer: WhisperTokenizer, *tokens: str) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise WeightsError(f"the tokenizer has no {', '.join(missing)}")
    return [vocabulary[token] for token in tokens]


def tensors(source: CTranslate2File) -> dict[str, Array]:
    """All weights under the stock class's names, float32; the output projection is tied and left out."""
    result = {"model.decoder.embed_tokens.weight": source.tensor("decoder/embeddings/weight")}
    for conv in ("conv1", "conv2"):
        _copy(source, result, f"encoder/{conv}", f"model.encoder.{conv}", _LINEAR)
    for stack in ("encoder", "decoder"):
        result[f"model.{stack}.embed_positions.weight"] = source.tensor(f"{stack}/position_encodings/encodings")
        _copy(source, result, f"{stack}/layer_norm", f"model.{stack}.layer_norm", _LAYER_NORM)
        for number in range(source.count(f"{stack}/layer_")):
            _layer(source, result, f"{stack}/layer_{number}", f"model.{stack}.layers.{number}")
    return result


def _layer(source: CTranslate2File, result: dict[str, Array], old: str, new: str) -> None:
    _copy(source, result, f"{old}/self_attention/layer_norm", f"{new}.self_attn_layer_norm", _LAYER_NORM)
    _split(source, result, f"{old}/self_attention/linear_0", f"{new}.self_attn", ("q_proj", "k_proj", "v_proj"))
    _copy(source, result, f"{old}/self_attention/linear_1", f"{new}.self_attn.out_proj", _LINEAR)
    if f"{old}/attention/linear_0/weight" in source.variables:
        _copy(source, result, f"{old}/attention/layer_norm", f"{new}.encoder_attn_layer_norm", _LAYER_NORM)
        _copy(source, result, f"{old}/attention/linear_0", f"{new}.encoder_attn.q_proj", _LINEAR)
        _split(source, result, f"{old}/attention/linear_1", f"{new}.encoder_attn", ("k_proj", "v_proj"))
        _copy(source, result, f"{old}/attention/linear_2", f"{new}.encoder_attn.out_proj", _LINEAR)
    _copy(source, result, f"{old}/ffn/layer_norm", f"{new}.final_layer_norm", _LAYER_NORM)
    _copy(source, result, f"{old}/ffn/linear_0", f"{new}.fc1", _LINEAR)
    _copy(source, result, f"{old}/ffn/linear_1", f"{new}.fc2", _LINEAR)


def _copy(
    source: CTranslate2File, result: dict[str, Array], old: str, new: str, names: tuple[tuple[str, str], ...]
) -> None:
    for theirs, ours in names:
        result[f"{new}.{ours}"] = source.tensor(f"{old}/{theirs}")


def _split(source: CTranslate2File, result: dict[str, Array], old: str, new: str, parts: tuple[str, ...]) -> None:
    """Take a fused projection apart along its output rows.

    Raises:
        WeightsError: the bias of the keys is not zero, so it cannot be left out.
    """
    weights = np.split(source.tensor(f"{old}/weight"), len(parts))
    biases = np.split(source.tensor(f"{old}/bias"), len(parts))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        result[f"{new}.{part}.weight"] = np.ascontiguousarray(weight)
        if part != "k_proj":
            result[f"{new}.{part}.bias"] = np.ascontiguousarray(bias)
        elif bias.any():
            raise WeightsError(f"{old} has a bias on its keys, which Whisper does not")
