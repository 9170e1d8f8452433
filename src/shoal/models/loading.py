"""Loading a model with everything that belongs to it, and refusing what is not whole."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from shoal.errors import AudioError, ModelError, UsageError, WeightsError
from shoal.models import families, lora, weights
from shoal.models.audio_cache import AudioCache
from shoal.models.contexts import quiet
from shoal.models.families.audio_llm import AudioLLM
from shoal.models.fingerprint import fingerprint
from shoal.models.info import Kind, kind_of, model_info
from shoal.models.languages import code_among
from shoal.models.lineage import HEAL_FILE
from shoal.models.peft_folder import CONFIG, add_adapter, apply_adapter, base_of, has_adapter, is_adapter_alone
from shoal.models.settings import ModelSettings
from shoal.models.speech_llm import RESPONSE_STYLES
from shoal.models.stock import load_parts
from shoal.schema import HealRecord, InputKind, ModelInfo
from shoal.settings import takes

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.data.clip import Row
    from shoal.models.families.base import Family
    from shoal.tasks import Task

WINDOW_TOLERANCE_SECONDS = 0.1
"""What a clip may be longer than the model's window: less than a sound."""
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
    kind: Kind
    licence: str | None = None
    no_processor: str = ""
    """Why there is no processor or tokenizer, where there should be one."""
    adapters: tuple[Path, ...] = ()
    """The folders of adapters that were put in and merged; `path` is that of the model below them."""
    audio_cache: AudioCache = field(default_factory=AudioCache, repr=False)
    _info: ModelInfo | None = field(default=None, repr=False)

    @property
    def decoder(self) -> nn.Module:
        """The decoder stack without the LM head."""
        return self.family.decoder(self.model)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, as they are now (fewer inside `pruned`)."""
        return self.family.layers(self.model)

    @property
    def lm(self) -> nn.Module:
        """What gives logits from `inputs_embeds`: the causal LM inside."""
        if isinstance(self.family, AudioLLM):
            return self.family.lm(self.model)
        return self.model.decoder if self.kind == "speech_llm" else self.model

    @property
    def inputs(self) -> tuple[InputKind, ...]:
        """What the model can be measured with; without a processor, an audio LLM takes neither."""
        if isinstance(self.family, AudioLLM):
            return self.family.inputs_of(self.model, self.processor)
        return ("speech", "text") if self.kind == "speech_llm" else ("text",)

    def check_fed(self) -> None:
        """Make sure that the model can be given input at all.

        Raises:
            ModelError: its processor, or the tokenizer of a text LLM, could not be loaded.
        """
        audio_llm = isinstance(self.family, AudioLLM)
        if self.processor is None and not self.inputs if audio_llm else self.tokenizer is None:
            reason = f" ({self.no_processor})" if self.no_processor else ""
            lacking = "tokenizer" if self.kind == "causal_lm" else "processor"
            raise ModelError(
                f"the folder has no {lacking} that can be loaded{reason}, so the model cannot be fed",
                where=self.ref,
                fix="put the model's processor and tokenizer files beside its weights",
            )

    def check_clips(self, data: Dataset, task: Task) -> None:
        """Make sure, before anything is computed, that the model hears every clip to its end and knows its language.

        Raises:
            AudioError: a clip is longer than the processor's window.
            ModelError: the model is told the language of a clip, and does not know it.
        """
        self.languages_told(task, data.info().languages)
        for index in np.flatnonzero(data.seconds() > self._longest_clip()):
            self.check_length(float(data.seconds()[index]), data.rows[int(index)])

    def languages_told(self, task: Task, languages: Sequence[str | None]) -> tuple[str | None, ...]:
        """What the model is told of the languages of clips, as manifests write them.

        Returns:
            A code for each clip, None where the model finds out; nothing if it takes no language, or none is named.

        Raises:
            ModelError: the model does not know a language.
        """
        if not (codes := self._languages(task)):
            return ()
        told = tuple(self._code(lang, codes) for lang in languages)
        return told if any(told) else ()

    def _languages(self, task: Task) -> Collection[str]:
        if not isinstance(self.family, AudioLLM) or task.plain_text:
            return ()
        return self.family.languages(self.model, transcribe=task.transcribes)

    def _code(self, lang: str | None, codes: Collection[str]) -> str | None:
        if not lang or (code := code_among(lang, codes)):
            return code if lang else None
        close = difflib.get_close_matches(lang.lower(), codes, n=3, cutoff=0.4)
        some = f" (it knows {len(codes)}, such as {', '.join(close or sorted(codes)[:5])})"
        raise ModelError(
            f"it does not know the language {lang!r} of a row{some}",
            where=self.ref,
            fix="correct `lang` in the manifest or --lang, or take it out: then the model finds out itself",
        )

    def _longest_clip(self) -> float:
        """What the model hears of a clip (s)."""
        longest = self.family.longest(self.processor) if isinstance(self.family, AudioLLM) else None
        return math.inf if longest is None else longest

    def check_length(self, seconds: float, row: Row) -> None:
        """Refuse a clip of which the model would hear the beginning only.

        Raises:
            AudioError: it is longer than the processor's window.
        """
        longest = self._longest_clip()
        if seconds > longest + WINDOW_TOLERANCE_SECONDS:
            raise AudioError(
                f"{row.audio_name} is {seconds:.1f} s long, and the model hears {longest:g} s of a clip",
                where=row.place,
                fix="split it, or leave long clips out",
            )

    @property
    def engine(self) -> bool:
        """Whether the decoder can be run from embeddings; else the model's own `generate` decodes."""
        if isinstance(self.family, AudioLLM):
            return self.family.engine
        return not self.family.reads_tokens(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the decoder runs in; some encoders stay in float32 beside it."""
        return next(self.decoder.parameters()).dtype

    @property
    def audio_dtype(self) -> torch.dtype:
        """What the encoder takes; the decoder's where there is none."""
        encoder = self.family.encoder(self.model)
        parameter = None if encoder is None else next(encoder.parameters(), None)
        return self.dtype if parameter is None else parameter.dtype

    @property
    def dtype_name(self) -> str:
        """Such as `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ids: list[int] = []
        for source in (self.model.generation_config, self.family.text_config(self.model), self.tokenizer):
            value = getattr(source, "eos_token_id", None)
            ids += [value] if isinstance(value, int) else list(value or [])
        return tuple(dict.fromkeys(ids))

    def response_text(self, text: str) -> str:
        """`text` as this model writes its responses (lower case without punctuation, say)."""
        return RESPONSE_STYLES[self.model.config.response_style](text) if self.kind == "speech_llm" else text

    def forget_info(self) -> None:
        """Let `info` be computed anew: for a model that was changed for good."""
        self._info = None

    def info(self) -> ModelInfo:
        """Which model this is and where its parameters are; computed once, before any pruning in memory."""
        if self._info is None:
            self._info = model_info(
                self.model,
                self.family,
                self.path,
                ref=self.ref,
                licence=self.licence,
                fingerprint=fingerprint(self.model),
            )
        return self._info.model_copy(deep=True)


@takes(ModelSettings)
def load(ref: str, settings: ModelSettings | None = None, **options: Any) -> LoadedModel:
    """Load a model and everything that belongs to it.

    Args:
        ref: a folder, a Hugging Face Hub id or `pkg:NAME`.
        settings: where and how it runs.
        **options: fields of `ModelSettings`, instead of `settings` or in their place.

    Raises:
        ModelError: not there, not understood, or not whole.
        WeightsError: cannot be downloaded or checked.
    """
    settings = ModelSettings.of(settings, options)
    return load_model(ref, device=settings.device, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code)


def load_model(ref: str, *, device: str, dtype: str, trust_remote_code: bool, merge: bool = True) -> LoadedModel:
    """See `load`; `merge` says what becomes of an adapter beside the weights, see `peft_folder`."""
    torch_device = find_device(device)
    torch_dtype = _dtype(dtype, torch_device)
    resolved = weights.resolve(ref)
    if is_adapter_alone(resolved.path):
        return _load_adapted(resolved, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with quiet():
        parts = load_parts(resolved.path, ref, torch_dtype, trust_remote_code)
        model = parts.model
        if merge and has_adapter(resolved.path):
            lora.merge(model, ref)
        family = families.find(model)
        own = resolved.path / family.adapter if family.adapter else None
        if merge and own is not None and (own / CONFIG).is_file():
            lora.merge(add_adapter(model, own, ref), ref)
    model = model.to(torch_device).eval().requires_grad_(False)
    loaded = LoadedModel(
        ref=ref,
        path=resolved.path,
        model=model,
        tokenizer=parts.tokenizer,
        processor=parts.processor,
        family=family,
        kind=kind_of(family),
        licence=resolved.licence,
        no_processor=parts.no_processor,
    )
    loaded.info()
    return loaded


def _load_adapted(adapter: weights.Resolved, *, device: str, dtype: str, trust_remote_code: bool) -> LoadedModel:
    """The base model of an adapter that is alone in its folder, with the adapter merged into it."""
    name = base_of(adapter.path, adapter.ref)
    try:
        base = load_model(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    except WeightsError as error:
        raise ModelError(
            f"its base model {name} cannot be had: {error.what}",
            where=f"{adapter.ref} ({CONFIG})",
            fix="put it there, or correct base_model_name_or_path",
        ) from error
    if (adapter.path / HEAL_FILE).is_file():
        record = HealRecord.load(adapter.path / HEAL_FILE)
        # Sampled weights are only the same in the same dtype.
        healed_in = record.provenance.dtype if record.provenance.dtype in DTYPES else "float32"
        same = base.info().fingerprint == record.model.fingerprint or base.dtype_name == healed_in
        twin = base if same else load_model(name, device=device, dtype=healed_in, trust_remote_code=trust_remote_code)
        check_base(adapter.ref, record, twin.info())
    with quiet():
        apply_adapter(base.model, adapter.path, adapter.ref)
    base.model.to(base.device).eval().requires_grad_(False)
    loaded = replace(
        base,
        ref=adapter.ref,
        licence=adapter.licence or base.licence,
        adapters=(*base.adapters, adapter.path),
        _info=None,
    )
    loaded.info()
    return loaded


def check_base(ref: str, record: HealRecord, base: ModelInfo) -> None:
    """Make sure that the adapter of a healed model is put into the model that was healed: PEFT takes any that it fits.

    Raises:
        ModelError: it is another, by its depth or its weights.
    """
    healed = record.model
    if base.depth != healed.depth:
        difference = f"has {base.depth} layers, and the model that was healed ({healed.ref}) had {healed.depth}"
    elif healed.fingerprint and base.fingerprint != healed.fingerprint:
        difference = f"has other weights than the model that was healed ({healed.ref})"
    else:
        return
    raise ModelError(
        f"the adapter is for another model: its base {base.ref} {difference}",
        where=ref,
        fix=f"set base_model_name_or_path in its {CONFIG} to the model that was healed",
    )


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA if there is a GPU, else MPS, else the CPU.

    Under a launcher, `cuda` is the GPU of this process' local rank and not the first for all.

    Raises:
        UsageError: there is no such device, or it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot use {name!r} ({reason})", where="--device", fix="try --device cpu") from None
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    if name == "stored":
        return "auto"
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {name!r}", where="--dtype", fix=f"use auto, stored, {', '.join(DTYPES)}")
    return DTYPES[name]
