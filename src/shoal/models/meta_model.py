"""The model of a checkpoint folder without its weights: every module and name, on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import ModelError
from shoal.models.contexts import quiet
from shoal.models.json_file import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"


def meta_model(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Build the class that `folder` names from its config, with the generation config beside it.

    Args:
        folder: a checkpoint folder with a `config.json`.
        trust_remote_code: run the folder's own code, if it has some.

    Raises:
        ModelError: no config, a class that is not known, or code that must be trusted first.
    """
    import torch
    from transformers import GenerationConfig

    raw = read_json_object(folder / CONFIG)
    try:
        with quiet():
            model_class, config = _class_and_config(folder, raw, trust_remote_code)
            # The others may need packages that only matter when the model runs.
            config._attn_implementation = "eager"
            with torch.device("meta"):
                model: PreTrainedModel = model_class(config)
            if (folder / GENERATION_CONFIG).is_file() and hasattr(model, "generation_config"):
                model.generation_config = GenerationConfig.from_pretrained(folder)
    except ModelError:
        raise
    except Exception as error:  # a config may fail in as many ways as there are classes
        raise ModelError(
            f"its class cannot be built from its config ({type(error).__name__}: {error})",
            where=str(folder),
            fix="check config.json, or give --trust-remote-code if the model brings its own code",
        ) from error
    return model


def _class_and_config(folder: Path, raw: dict[str, Any], trust: bool) -> tuple[Any, PreTrainedConfig]:
    import transformers
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    from shoal.models.speech_llm import SpeechLLM, SpeechLLMConfig
    from shoal.models.stock import AUTO_CLASSES

    if raw.get("model_type") == SpeechLLMConfig.model_type:
        return SpeechLLM, SpeechLLMConfig.from_pretrained(folder)
    code = raw.get("auto_map") or {}
    named = next((code[name] for name in AUTO_CLASSES if name in code), None)
    if named is not None and trust:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
        return get_class_from_dynamic_module(named, folder), config
    architecture = (raw.get("architectures") or [""])[0]
    if not architecture or not hasattr(transformers, architecture):
        raise ModelError(
            f"transformers {transformers.__version__} has no class {architecture!r}",
            where=str(folder / CONFIG),
            fix="give --trust-remote-code to use the model's own code"
            if code
            else "name the model's class under architectures, or install the version of transformers that has it",
        )
    return getattr(transformers, architecture), transformers.AutoConfig.from_pretrained(folder)
