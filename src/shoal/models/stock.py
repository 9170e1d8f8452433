"""Loading what lies in a folder by its stock classes: the whole model or none, and what feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from shoal.errors import InputError, ModelError
from shoal.models import families, weights
from shoal.models.adapters import load_adapters
from shoal.models.audio_processor import audio_processor
from shoal.models.families.audio_llm import AudioLLM
from shoal.models.lineage import ADAPTERS_FILE
from shoal.models.speech_llm import SpeechLLM, SpeechLLMProcessor
from shoal.models.whole import whole

AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForSpeechSeq2Seq", "AutoModelForMultimodalLM", "AutoModel")
"""Those that a checkpoint with code of its own may register, in the order in which they are looked for."""


TOKENIZER_FILES = (
    "tokenizer*",
    "tokenization*",
    "vocab*",
    "*.model",
    "*.tiktoken",
    "*.spm",
    "merges.txt",
    "tekken.json",
)


class Parts(NamedTuple):
    """A model and what feeds it."""

    model: PreTrainedModel
    tokenizer: Any | None
    processor: Any | None = None
    no_processor: str = ""
    """Why there is no processor, where one was looked for."""


def load_parts(path: Path, ref: str, dtype: torch.dtype | str, trust_remote_code: bool) -> Parts:
    """The model in `path` and what feeds it, by the classes that the folder names.

    Args:
        path: the folder.
        ref: what the user calls the model, for messages.
        dtype: of the weights; `auto` is what they are stored in.
        trust_remote_code: run code that the model brings along.

    Raises:
        ModelError: it cannot be loaded, or weights are missing.
    """
    if (path / ADAPTERS_FILE).is_file():
        model, processor = load_adapters(path, resolve=lambda name: weights.resolve(name).path, merge=True)
        return Parts(model if dtype == "auto" else model.to(dtype), processor.tokenizer, processor)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if config.model_type == SpeechLLM.config_class.model_type:
            model = whole(SpeechLLM, path, ref, dtype=dtype)
            return _heard(model, path)
        options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
        model = whole(stock_class(config, ref), path, ref, **options)
        if isinstance(families.find(model), AudioLLM):
            return _fed(model, path, trust_remote_code)
        tokenizer, problem = _tokenizer(path, trust_remote_code)
        return Parts(model, tokenizer, None, problem)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # transformers raises many kinds; all mean: this folder is not a model we can load
        raise ModelError(
            f"cannot be loaded ({type(error).__name__}: {error})",
            where=ref,
            fix="give a folder with config.json, safetensors weights and a tokenizer or processor",
        ) from None


def stock_class(config: PreTrainedConfig, ref: str) -> Any:
    """The class that a checkpoint is loaded with: the one its config names, or the auto class of its own code.

    Raises:
        ModelError: the config names a class that transformers does not have.
    """
    own_code = getattr(config, "auto_map", None) or {}
    for name in AUTO_CLASSES:
        if name in own_code:
            return getattr(transformers, name)
    class_name = (config.architectures or [""])[0]
    if not class_name:
        return AutoModelForCausalLM
    if (model_class := getattr(transformers, class_name, None)) is None:
        raise ModelError(
            f"transformers {transformers.__version__} has no class {class_name}",
            where=ref,
            fix="install the version that the checkpoint was made with (config.json, transformers_version)",
        )
    return model_class


def _heard(model: PreTrainedModel, path: Path) -> Parts:
    """A SpeechLLM with what feeds it, if its files are there."""
    try:
        processor = SpeechLLMProcessor.from_pretrained(path)
    except Exception as error:  # a tokenizer or feature extractor that is not there, or not whole
        return Parts(model, None, None, _reason(error))
    return Parts(model, processor.tokenizer, processor)


def _fed(model: PreTrainedModel, path: Path, trust_remote_code: bool) -> Parts:
    """With tokenizer and processor; a checkpoint without a processor can still be pruned."""
    processor, problem = _processor(path, trust_remote_code)
    if processor is None:
        return Parts(model, _tokenizer(path, trust_remote_code)[0], None, problem)
    if isinstance(processor, PreTrainedTokenizerBase):
        return Parts(model, processor, None, "there is only a tokenizer")
    tokenizer = getattr(processor, "tokenizer", None) or _tokenizer(path, trust_remote_code)[0]
    return Parts(model, tokenizer, processor)


def _processor(path: Path, trust_remote_code: bool) -> tuple[Any | None, str]:
    """The processor, or None and why."""
    try:
        return AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code), ""
    except Exception as error:  # whatever a processor's own code raises: there is none to be had, or none that sees
        problem = _reason(error)
    try:
        return audio_processor(path), ""
    except Exception:
        return None, problem


def _tokenizer(path: Path, trust_remote_code: bool) -> tuple[Any | None, str]:
    """The tokenizer, or None and why; a model without one can still be pruned."""
    # Without any file some classes make a tokenizer that knows no word.
    if not any(file for pattern in TOKENIZER_FILES for file in path.glob(pattern)):
        return None, "there is no file of a tokenizer"
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code), ""
    except Exception as error:  # whatever a tokenizer's own code raises
        return None, _reason(error)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
