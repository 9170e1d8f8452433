"""Adapters only: what was trained of a SpeechLLM, with references to the base models it was trained on.

A folder holds `speech_llm.json` (an `AdapterSpec`) and `adapters.safetensors`:

- `projector.NAME`: the weights of the projector;
- `NAME.lora_A.weight` (r, in) and `NAME.lora_B.weight` (out, r) for each adapted linear layer of the decoder.

Weights may be compressed, see `shoal.models.row_int8`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from shoal.errors import FileFormatError, ModelError
from shoal.models import lora, row_int8
from shoal.models.build import Resolve, assemble, load_decoder, load_encoder, resolve_path
from shoal.models.fingerprint import base_fingerprint
from shoal.models.lineage import ADAPTERS_FILE
from shoal.models.speech_llm import EncoderWindow, SpeechLLM, SpeechLLMProcessor
from shoal.provenance import provenance
from shoal.schema import Document, Record, write_text
from shoal.schema.files import replaced

TENSORS_FILE = "adapters.safetensors"
_PROJECTOR = "projector."


class LoraSpec(Record):
    """The low-rank updates; their scaling is alpha / rank."""

    rank: int = Field(ge=1)
    alpha: float
    targets: list[str] = Field(default_factory=list)
    """Kinds of linear layers that are adapted (last part of their names)."""


class AdapterSpec(Document):
    """What the adapters belong to, and how the SpeechLLM they make is asked."""

    kind: Literal["speech_llm"] = "speech_llm"
    encoder: str
    """A folder (also relative to this one), a Hub id or `pkg:NAME`."""
    decoder: str
    decoder_layers: int | None = None
    """Of the decoder that they were trained on; None in files that do not say it."""
    decoder_fingerprint: str = ""
    """Of its weights, see `base_fingerprint`; empty where that is not known."""
    projector: dict[str, Any]
    """Arguments of `ProjectorSettings`."""
    prompt_template: str
    response_style: str
    end_token: str
    encoder_window: EncoderWindow = "full"
    """What an encoder with a fixed window hears; files that do not say it are of models that heard all of it."""
    lora: LoraSpec | None = None
    licence: str | None = None
    tensor_names: dict[str, str] = Field(default_factory=dict)
    """Beginnings of names in the file → what they are called here."""


def load_adapters(
    folder: str | os.PathLike[str],
    *,
    resolve: Resolve = resolve_path,
    merge: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> tuple[SpeechLLM, SpeechLLMProcessor]:
    """Load the base models and put the adapters in.

    Args:
        folder: with `speech_llm.json` and `adapters.safetensors`.
        resolve: finds the folder behind a reference to a base model.
        merge: fold the low-rank updates into the decoder's weights; else they become trainable PEFT layers.
        dtype: of all weights, but for unmerged updates, which PEFT keeps in float32 to train them.
        device: where the model goes.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        FileFormatError: one of the two files cannot be read.
        ModelError: the adapters do not fit the base models.
    """
    folder = Path(folder)
    spec = AdapterSpec.load(folder / ADAPTERS_FILE)
    tensors = _read_tensors(folder / TENSORS_FILE, spec.tensor_names)
    model, processor = _base(spec, folder, resolve, dtype)
    updates = _take_updates(tensors, spec.lora)
    _fill_projector(model, tensors, where=str(folder / TENSORS_FILE))
    (lora.merge_updates if merge else lora.add_updates)(model.decoder, updates)
    model.config.lora_merged = merge and bool(updates)
    model.projector.to(dtype)
    return model.to(device).eval(), processor


def _base(
    spec: AdapterSpec, folder: Path, resolve: Resolve, dtype: torch.dtype
) -> tuple[SpeechLLM, SpeechLLMProcessor]:
    def find(ref: str) -> Path:
        beside = folder / ref
        return beside if beside.is_dir() else resolve(ref)

    encoder, decoder = load_encoder(spec.encoder, find, dtype), load_decoder(spec.decoder, find, dtype)
    depth = _depth(decoder.model)
    if spec.decoder_layers not in (None, depth):
        raise ModelError(
            f"the adapters were trained on a decoder of {spec.decoder_layers} layers, and {spec.decoder} has {depth}",
            where=str(folder / ADAPTERS_FILE),
            fix="name the decoder that they were trained on",
        )
    weights = base_fingerprint(decoder.model) if spec.decoder_fingerprint else ""
    if weights and weights != spec.decoder_fingerprint:
        raise ModelError(
            f"the adapters were trained on other weights than those of {spec.decoder}",
            where=str(folder / ADAPTERS_FILE),
            fix="name the decoder that they were trained on",
        )
    wording = {"prompt_template", "response_style", "end_token"}
    settings = spec.model_dump(include=wording | {"projector", "encoder_window"})
    try:
        return assemble(encoder, decoder, **settings)
    except ValueError as error:
        raise ModelError(str(error), where=str(folder / ADAPTERS_FILE), fix="correct the file") from None


def _depth(decoder: PreTrainedModel) -> int | None:
    return getattr(decoder.config.get_text_config(decoder=True), "num_hidden_layers", None)


def _read_tensors(path: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """All tensors, expanded to float32, under the names used here."""
    try:
        stored = row_int8.expand(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FileFormatError(
            f"cannot be read ({error})", where=str(path), fix="save or copy the adapters again"
        ) from None
    return {_renamed(name, names): tensor for name, tensor in stored.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _take_updates(tensors: Mapping[str, Tensor], spec: LoraSpec | None) -> lora.Updates:
    pairs = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PROJECTOR)}
    if pairs and spec is None:
        raise ModelError("there are low-rank updates but no `lora`", where=ADAPTERS_FILE, fix="add rank and alpha")
    return lora.updates_of(pairs, 1.0 if spec is None else spec.alpha / spec.rank)


def _fill_projector(model: SpeechLLM, tensors: Mapping[str, Tensor], *, where: str) -> None:
    weights = {name.removeprefix(_PROJECTOR): tensor for name, tensor in tensors.items() if name.startswith(_PROJECTOR)}
    try:
        model.projector.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"the projector's weights do not fit ({error})", where=where, fix=f"compare with {ADAPTERS_FILE}"
        ) from None


def save_adapters(
    model: SpeechLLM,
    folder: str | os.PathLike[str],
    *,
    encoder: str,
    decoder: str,
    licence: str | None = None,
    compress: bool = False,
) -> Path:
    """Write projector and low-rank updates; returns the folder.

    Args:
        model: with its updates as PEFT layers, or without any.
        folder: made if it is not there; existing adapters in it are replaced.
        encoder: reference to the encoder that `model` was built on.
        decoder: reference to the decoder that `model` was built on.
        licence: of the adapters.
        compress: store int8 rows with float16 scales, a quarter of the size, see `row_int8`.

    Raises:
        ModelError: the updates were folded into the decoder and cannot be taken out again.
        FileFormatError: the folder cannot be written.
    """
    if model.config.lora_merged:
        raise ModelError(
            "the low-rank updates are folded into the decoder", where="model", fix="load it with merge=False"
        )
    updates = lora.lora_state(model.decoder, scaled=True)
    projector = {_PROJECTOR + name: tensor for name, tensor in model.projector.state_dict().items()}
    tensors = projector | updates
    folder = Path(folder)
    write_tensors(folder / TENSORS_FILE, row_int8.compress(tensors) if compress else tensors)
    spec = AdapterSpec(
        provenance=provenance(device=str(model.device), dtype=str(model.dtype).removeprefix("torch.")),
        encoder=encoder,
        decoder=decoder,
        decoder_layers=_depth(model.decoder),
        decoder_fingerprint=base_fingerprint(model.decoder),
        projector=model.config.projector,
        prompt_template=model.config.prompt_template,
        response_style=model.config.response_style,
        end_token=model.config.end_token,
        encoder_window=model.config.encoder_window,
        lora=_lora_spec(updates),
        licence=licence,
    )
    write_text(folder / ADAPTERS_FILE, spec.model_dump_json(indent=1) + "\n")
    return folder


def _lora_spec(updates: Mapping[str, Tensor]) -> LoraSpec | None:
    if not updates:
        return None
    rank = max(len(tensor) for name, tensor in updates.items() if ".lora_A." in name)
    return LoraSpec(rank=rank, alpha=rank, targets=sorted({name.split(".")[-3] for name in updates}))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Save tensors under a temporary name, then rename.

    Raises:
        FileFormatError: the folder cannot be made or written.
    """
    with replaced(path, fix="choose another folder") as file:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file.name)
