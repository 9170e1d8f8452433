"""What tiny audio LLMs are made of: a tokenizer, a chat template, configs of a small decoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shoal.models.contexts import quiet

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}AUDIO{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A chat template with the model's audio placeholder in the place of AUDIO."""


@dataclass(frozen=True)
class TinyAudio:
    """A tiny random model of a stock class, in float32 and evaluation mode, with what it needs to hear.

    Args:
        build: makes the model; takes the decoder's depth.
        processor: makes the processor, of the stock class; None where it cannot be built offline.
        depth: the decoder's depth in tests, unless they say otherwise.
        no_processor: why there is no processor.
        files: adds to a checkpoint folder what saving the model does not write.
        float_encoder: the encoder computes in float32 whatever it is told.
        stand_in: what of the processor is a stand-in in the tests.
    """

    build: Callable[[int], PreTrainedModel]
    processor: Callable[[], Any] | None = None
    depth: int = 6
    no_processor: str = ""
    files: Callable[[Path], object] = lambda folder: None
    float_encoder: bool = False
    stand_in: str = ""

    def stand_ins(self) -> str:
        """`stand_in`, or what files that name a part which sees come to without image libraries."""
        blind = self.processor is not None and isinstance(self.processor(), ProcessorFiles)
        return self.stand_in or ("the part of its processor that sees" if blind else "")

    def write(self, folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        """The checkpoint folder of a model in `dtype`; `options` are those of `save_pretrained`."""
        torch.manual_seed(0)  # codecs have random buffers that are no parameters
        with quiet():
            self.build(self.depth).to(dtype).save_pretrained(folder, **options)
        if self.processor is not None:
            self.processor().save_pretrained(folder)
        self.files(folder)
        return folder


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and `special` ones; id 0 pads, 1 begins, 2 ends; `special[0]` has id 5, and so on.

    `named` are attributes that a processor looks for, such as `audio_token`, with the special token each of them is.
    """
    first = [PAD, BOS, EOS, "<|user|>", "<|assistant|>", *special]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*first, *letters])}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=first[3:],
        padding_side="left",
        **named,
    )


def keep_float(*parts: nn.Module) -> None:
    """Let `parts` of a model in float64 compute in float32."""

    def as_float(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = {name: _float(value) for name, value in kwargs.items()}
        return tuple(_float(value) for value in args), named

    for part in parts:
        part.float().register_forward_pre_hook(as_float, with_kwargs=True)


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


@dataclass(frozen=True)
class ProcessorFiles:
    """The files of a processor that also sees, which needs image libraries to be made but not to be written.

    Args:
        stock: its class.
        parts: tokenizer and feature extractor.
        template: its chat template.
        seeing: settings of the part that sees.
        settings: settings of the processor itself.
    """

    stock: str
    parts: Sequence[Any]
    template: str
    seeing: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def save_pretrained(self, folder: Path) -> None:
        """As checkpoints on the hub have them."""
        for part in self.parts:
            part.save_pretrained(folder)
        path = folder / "preprocessor_config.json"
        both = json.loads(path.read_text()) | dict(self.seeing) | {"processor_class": self.stock}
        path.write_text(json.dumps(both))
        own = {"processor_class": self.stock, **self.settings}
        (folder / "processor_config.json").write_text(json.dumps(own))
        (folder / "chat_template.jinja").write_text(self.template)


VOCABULARY = 300
"""More than `tokenizer` needs."""


def template(audio: str) -> str:
    """A chat template whose audio placeholder is `audio`."""
    return TEMPLATE.replace("AUDIO", audio)


def text_fields(depth: int, **more: Any) -> dict[str, Any]:
    """Fields of a small decoder's config."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | more


def alternating(depth: int, kinds: Sequence[str] = ("sliding_attention", "full_attention")) -> list[str]:
    """Irregular on purpose: removing a layer must change what its neighbours' index would imply."""
    return [kinds[index % 3 == 1] for index in range(depth)]


def randomised(model: PreTrainedModel, *, seed: int = 0, std: float = 0.15) -> PreTrainedModel:
    """The model with weights large enough for every layer to matter, greedy and unending, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    if model.generation_config is not None:
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    return model.float().eval()
