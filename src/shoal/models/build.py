"""A SpeechLLM from an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from shoal.errors import ModelError
from shoal.models.speech_llm import EncoderWindow, ProjectorSettings, SpeechLLM, SpeechLLMConfig, SpeechLLMProcessor
from shoal.models.whole import whole

Resolve = Callable[[str], Path]
"""Where the weights behind a reference lie."""

_TRAINING_ONLY = ("masked_spec_embed",)
"""Weights that checkpoints of fine-tuned encoders lack and that only the masking of training uses."""


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """A speech encoder with its feature extractor."""

    model: PreTrainedModel
    feature_extractor: Any


@dataclass(frozen=True, slots=True)
class LoadedDecoder:
    """A causal LM with its tokenizer."""

    model: PreTrainedModel
    tokenizer: Any


def resolve_path(ref: str) -> Path:
    """Where the weights behind `ref` lie: a folder, a Hub id or `pkg:NAME`.

    Raises:
        WeightsError: they cannot be had.
    """
    from shoal.models import weights

    return weights.resolve(ref).path


def build(
    encoder: str | LoadedEncoder,
    decoder: str | LoadedDecoder,
    *,
    projector: str | Mapping[str, Any] = "mlp",
    prompt_template: str | None = None,
    response_style: str = "lower",
    end_token: str | None = None,
    encoder_window: EncoderWindow = "clip",
    resolve: Resolve = resolve_path,
    dtype: torch.dtype = torch.float32,
) -> tuple[SpeechLLM, SpeechLLMProcessor]:
    """A SpeechLLM of pretrained parts with a fresh projector.

    Args:
        encoder: a reference, or a loaded encoder.
        decoder: a reference, or a loaded causal LM.
        projector: a key of `speech_llm.PROJECTORS`, or the arguments of `ProjectorSettings`.
        prompt_template: text with `{audio}` and `{instruction}`; default is the decoder's chat template.
        response_style: a key of `speech_llm.RESPONSE_STYLES`.
        end_token: what ends a response; default is the tokenizer's end of sequence.
        encoder_window: what an encoder with a fixed window hears, see `speech_llm.EncoderWindow`.
        resolve: finds the folder behind a reference.
        dtype: of all weights.

    Raises:
        ModelError: a part cannot be loaded, or the parts cannot be put together.
    """
    loaded_encoder = load_encoder(encoder, resolve, dtype) if isinstance(encoder, str) else encoder
    loaded_decoder = load_decoder(decoder, resolve, dtype) if isinstance(decoder, str) else decoder
    settings = {"type": projector} if isinstance(projector, str) else dict(projector)
    wording = {
        "prompt_template": prompt_template or chat_template(loaded_decoder.tokenizer),
        "response_style": response_style,
        "end_token": end_token or loaded_decoder.tokenizer.eos_token,
        "encoder_window": encoder_window,
    }
    try:
        model, processor = assemble(loaded_encoder, loaded_decoder, projector=settings, **wording)
    except ValueError as error:
        raise ModelError(str(error), where="SpeechLLM", fix="choose other parts or settings") from None
    return model.to(dtype).eval(), processor


def assemble(encoder: LoadedEncoder, decoder: LoadedDecoder, **settings: Any) -> tuple[SpeechLLM, SpeechLLMProcessor]:
    """Put loaded parts together; `settings` are arguments of `SpeechLLMConfig`.

    Raises:
        ValueError: a setting is wrong, or the encoder is of a kind that is not supported.
    """
    names = [field.name for field in fields(ProjectorSettings)]
    if unknown := sorted({*settings["projector"]} - {*names}):
        raise ValueError(f"a projector has no setting {unknown[0]!r} (there are {', '.join(names)})")
    config = SpeechLLMConfig(
        encoder_config=encoder.model.config, text_config=decoder.model.config, dtype=decoder.model.dtype, **settings
    )
    processor = SpeechLLMProcessor.of(config, encoder.feature_extractor, decoder.tokenizer)
    model = SpeechLLM(config, encoder=encoder.model, decoder=decoder.model)
    model.generation_config = _greedy(decoder, processor)
    return model, processor


def _greedy(decoder: LoadedDecoder, processor: SpeechLLMProcessor) -> GenerationConfig:
    """Greedy decoding that ends where decoder or template end; checkpoints differ in how they sample."""
    stated = getattr(decoder.model.generation_config, "eos_token_id", None)
    ends = [stated] if isinstance(stated, int) else list(stated or [])
    ends.append(processor.tokenizer.convert_tokens_to_ids(processor.end_token))
    return GenerationConfig(
        do_sample=False,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=list(dict.fromkeys(ends)),
        pad_token_id=processor.tokenizer.pad_token_id,
    )


def chat_template(tokenizer: Any) -> str:
    """The tokenizer's chat template, audio first and the instruction below it; plain lines without one."""
    if not getattr(tokenizer, "chat_template", None):
        return f"{tokenizer.bos_token or ''}{{audio}}\n{{instruction}}\n"
    turn = [{"role": "user", "content": "{audio}\n{instruction}"}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def load_encoder(ref: str, resolve: Resolve = resolve_path, dtype: torch.dtype = torch.float32) -> LoadedEncoder:
    """Load an encoder; of an encoder–decoder (Whisper), its encoder.

    Raises:
        ModelError: it cannot be loaded, or weights are missing.
    """
    path = resolve(ref)
    model = _load(AutoModel, path, ref, dtype)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return LoadedEncoder(model, _load_processor(AutoFeatureExtractor, path, ref))


def load_decoder(ref: str, resolve: Resolve = resolve_path, dtype: torch.dtype = torch.float32) -> LoadedDecoder:
    """Load a causal LM.

    Raises:
        ModelError: it cannot be loaded, or weights are missing.
    """
    path = resolve(ref)
    model = _load(AutoModelForCausalLM, path, ref, dtype)
    return LoadedDecoder(model, _load_processor(AutoTokenizer, path, ref))


def _load(auto_class: Any, path: Path, ref: str, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return whole(auto_class, path, ref, forgiven=_TRAINING_ONLY, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unloadable(ref, error) from None


def _load_processor(auto_class: Any, path: Path, ref: str) -> Any:
    try:
        return auto_class.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(ref, error) from None


def _unloadable(ref: str, error: Exception) -> ModelError:
    return ModelError(f"cannot be loaded ({type(error).__name__}: {error})", where=ref, fix="check the base model")
