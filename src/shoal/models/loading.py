"""Loading a model with everything that belongs to it, and refusing what is not whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from shoal.errors import InputError, ModelError, UsageError
from shoal.models import families, weights
from shoal.models.adapters import ADAPTERS_FILE, load_adapters
from shoal.models.audio_cache import AudioCache
from shoal.models.batch import PreparedBatch
from shoal.models.lineage import removed_layers
from shoal.models.prepare import prepare
from shoal.models.quiet import quiet
from shoal.models.speech_llm import RESPONSE_STYLES, SpeechLLM, SpeechLLMProcessor
from shoal.schema import InputKind, ModelInfo

if TYPE_CHECKING:
    from shoal.data.clip import Clip
    from shoal.models.families.base import Family
    from shoal.tasks import Task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class LoadedModel:
    """A model in evaluation mode with its tokeniser, processor and family."""

    ref: str
    path: Path
    model: PreTrainedModel
    tokenizer: Any
    processor: Any | None
    family: Family
    kind: Literal["speech_llm", "causal_lm"]
    licence: str | None = None
    audio_cache: AudioCache = field(default_factory=AudioCache, repr=False)
    _info: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def decoder(self) -> nn.Module:
        """The decoder stack without the LM head."""
        return self.family.decoder(self.model)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, as they are now (fewer inside `pruned`)."""
        return self.family.layers(self.model)

    @property
    def lm(self) -> PreTrainedModel:
        """What gives logits from `inputs_embeds`: the causal LM inside."""
        return self.model.decoder if self.kind == "speech_llm" else self.model

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model runs in."""
        return self.model.dtype

    @property
    def dtype_name(self) -> str:
        """Such as `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        found: list[int] = []
        for source in (self.model.generation_config, self.family.text_config(self.model), self.tokenizer):
            value = getattr(source, "eos_token_id", None)
            found += [value] if isinstance(value, int) else list(value or [])
        return tuple(dict.fromkeys(found))

    def response_text(self, text: str) -> str:
        """`text` as this model writes its responses (lower case without punctuation, say)."""
        return RESPONSE_STYLES[self.model.config.response_style](text) if self.kind == "speech_llm" else text

    def prepare(
        self,
        clips: Sequence[Clip],
        task: Task,
        *,
        input: InputKind = "speech",
        response: bool = False,
        padding_side: Literal["left", "right"] = "left",
    ) -> PreparedBatch:
        """Embed clips for the decoder; see `shoal.models.prepare.prepare`."""
        return prepare(self, clips, task, input=input, response=response, padding_side=padding_side)

    def info(self) -> ModelInfo:
        """Which model this is and where its parameters are; computed once, before any pruning in memory."""
        if not self._info:
            self._info = describe(self)
        return ModelInfo(**self._info)


def load_model(ref: str, *, device: str, dtype: str, trust_remote_code: bool) -> LoadedModel:
    """See `shoal.models.load`."""
    torch_device, torch_dtype = _device(device), _dtype(dtype, device)
    resolved = weights.resolve(ref)
    with quiet():
        model, tokenizer, processor = _load_parts(resolved.path, ref, torch_dtype, trust_remote_code)
    model = model.to(torch_device).eval().requires_grad_(False)
    loaded = LoadedModel(
        ref=ref,
        path=resolved.path,
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        family=families.find(model),
        kind="speech_llm" if isinstance(model, SpeechLLM) else "causal_lm",
        licence=resolved.licence,
    )
    loaded.info()
    return loaded


def _load_parts(
    path: Path, ref: str, dtype: torch.dtype | str, trust_remote_code: bool
) -> tuple[Any, Any, Any]:
    if (path / ADAPTERS_FILE).is_file():
        model, processor = load_adapters(path, resolve=lambda name: weights.resolve(name).path, merge=True)
        return (model if dtype == "auto" else model.to(dtype)), processor.tokenizer, processor
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if config.model_type == SpeechLLM.config_class.model_type:
            model = _whole(SpeechLLM, path, ref, dtype=dtype)
            processor = SpeechLLMProcessor.from_pretrained(path)
            return model, processor.tokenizer, processor
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        model = _whole(AutoModelForCausalLM, path, ref, dtype=dtype, trust_remote_code=trust_remote_code)
        return model, tokenizer, None
    except (InputError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # transformers raises many kinds; all mean: this folder is not a model we can load
        raise ModelError(
            f"cannot be loaded ({type(error).__name__}: {error})",
            where=ref,
            fix="give a folder with config.json, safetensors weights and a tokenizer of a causal LM or a SpeechLLM",
        ) from None


def _whole(auto_class: Any, path: Path, ref: str, **options: Any) -> PreTrainedModel:
    """Load, and refuse a checkpoint whose missing layers would silently get random weights."""
    model, report = auto_class.from_pretrained(
        path, output_loading_info=True, use_safetensors=True, **options
    )
    problems = {
        name: sorted(map(str, report.get(name) or [])) for name in ("missing_keys", "mismatched_keys")
    }
    for name, keys in problems.items():
        if keys:
            raise ModelError(
                f"{len(keys)} weights are {name.removesuffix('_keys')}, such as {keys[0]}",
                where=ref,
                fix="they would be random; check num_hidden_layers in config.json against the weights",
            )
    return model


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """Fields of `ModelInfo`."""
    model, family = loaded.model, loaded.family
    layers = family.layers(model)
    encoder, projector = family.encoder(model), family.projector(model)
    total = parameter_count(model)
    per_layer = [parameter_count(layer) for layer in layers]
    encoder_count, projector_count = (parameter_count(part) if part else 0 for part in (encoder, projector))
    return {
        "ref": loaded.ref,
        "kind": loaded.kind,
        "class_name": type(model).__name__,
        "family": family.name,
        "depth": len(layers),
        "hidden_size": int(family.text_config(model).hidden_size),
        "encoder_parameters": encoder_count,
        "projector_parameters": projector_count,
        "decoder_layer_parameters": per_layer,
        "decoder_other_parameters": total - encoder_count - projector_count - sum(per_layer),
        "total_parameters": total,
        "removed_layers": removed_layers(loaded.path),
        "licence": loaded.licence,
        "fingerprint": fingerprint(model),
    }


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def fingerprint(model: nn.Module, samples: int = 64) -> str:
    """SHA-256 over names, shapes and `samples` evenly spaced values of every tensor of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // samples)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(flat[::step][:samples].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"cannot use {name!r} ({reason})", where="--device", fix="try --device cpu"
        ) from None
    return device


def _dtype(name: str, device: str) -> torch.dtype | str:
    if name == "auto":
        return torch.float32 if device == "cpu" else "auto"
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {name!r}", where="--dtype", fix=f"use auto, {', '.join(DTYPES)}")
    return DTYPES[name]
