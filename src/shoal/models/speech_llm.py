"""Encoder–projector–LLM: a speech encoder whose frames a projector turns into embeddings of a causal LM.

::

    audio (samples,) ─ feature extractor ─► encoder (frames, d_enc) ─► projector (n, d) ─┐
    text ─ tokenizer ─► token ids ─► input embeddings (T, d) ─ `<|audio|>` ids replaced ─┴─► decoder ─► logits

This file is complete in itself: `save_pretrained` copies it into the checkpoint, from where
`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` loads it, and so does `AutoModel`.

Encoders: Whisper (its encoder; log-mel of the clip and a margin, or padded to a window; longer audio cut into windows)
and those that read the waveform through convolutions (wav2vec 2.0, HuBERT, WavLM). Decoders: any `*ForCausalLM` that
takes `inputs_embeds`.
"""

from __future__ import annotations

import inspect
import math
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    BatchFeature,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import CausalLMOutputWithPast

SAMPLE_RATE = 16_000
"""The rate (Hz) of all audio given to the processor."""
AUDIO_TOKEN = "<|audio|>"
CHATML_TEMPLATE = "<|im_start|>user\n{audio}\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
IGNORED_LABEL = -100
WHISPER_SAMPLES_PER_FRAME = 320
"""Hop of 160 samples, halved by the second convolution (stride 2)."""
WINDOW_MARGIN = 3_200
"""Samples of silence (0.2 s) that an encoder hears behind a clip, where it does not hear a whole window."""
EncoderWindow = Literal["full", "clip"]
"""What an encoder with a fixed window hears of it: all, however short the clip is, or the clip and `WINDOW_MARGIN`."""


# --- Frames: how many encoder states a clip gives -------------------------------------------------


@dataclass(frozen=True)
class FrameGeometry:
    """How many encoder frames a number of samples gives.

    Args:
        window: samples of one encoder window (Whisper: 480,000); None if the encoder takes any length.
        layers: (kernel, stride) of each convolution from samples to frames, unpadded; empty with a window.
        heard: an `EncoderWindow`; encoders of any length hear the clip alone.
    """

    window: int | None = None
    layers: tuple[tuple[int, int], ...] = ()
    heard: EncoderWindow = "full"

    @classmethod
    def of(cls, config: PreTrainedConfig, heard: EncoderWindow = "full") -> FrameGeometry:
        """The geometry of an encoder.

        Raises:
            ValueError: the encoder is neither Whisper nor a convolutional waveform encoder.
        """
        if config.model_type == "whisper":
            return cls(window=config.max_source_positions * WHISPER_SAMPLES_PER_FRAME, heard=heard)
        kernels = getattr(config, "conv_kernel", None)
        if kernels is None:
            raise ValueError(
                f"encoder {config.model_type!r} is not supported (Whisper, wav2vec 2.0, HuBERT and WavLM are)"
            )
        layers = list(zip(kernels, config.conv_stride, strict=True))
        if getattr(config, "add_adapter", False):
            layers += [(1, config.adapter_stride)] * config.num_adapter_layers
        return cls(layers=tuple(layers))

    @property
    def shortest(self) -> int:
        """Samples needed for one frame; shorter clips are padded with zeros to this length."""
        samples = 1
        for kernel, stride in reversed(self.layers):
            samples = (samples - 1) * stride + kernel
        return samples

    def windows(self, samples: int) -> list[int]:
        """The clip's length in each of its windows, in samples."""
        if self.window is None:
            return [samples]
        return [min(self.window, samples - start) for start in range(0, samples, self.window)]

    def frames(self, samples: int) -> int:
        """Frames of one window that holds `samples` samples of the clip."""
        if self.window is not None:
            return math.ceil(samples / WHISPER_SAMPLES_PER_FRAME)
        for kernel, stride in self.layers:
            samples = (samples - kernel) // stride + 1
        return samples

    def encoded(self, samples: int) -> int:
        """Frames that the encoder computes of a window with `samples` samples of the clip."""
        if self.window is None or self.heard == "clip":
            return self.frames(min(samples + WINDOW_MARGIN, self.window) if self.window else samples)
        return self.frames(self.window)

    def total(self, samples: int) -> int:
        """Frames of a whole clip, over all its windows."""
        return sum(self.frames(window) for window in self.windows(samples))


# --- Projectors -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProjectorSettings:
    """What a projector is.

    Args:
        type: a key of `PROJECTORS`.
        stack: neighbouring frames that become one position (`conv`: the stride).
        hidden_size: width of the hidden layer of `mlp`, channels of `conv`; `linear` has none.
        kernel: frames that one position of `conv` sees.
        input_norm: LayerNorm before the first layer.
        output_norm: "rms" divides each output by its root mean square (no weight); None leaves it.
        output_scale: fixed factor on the output.
        gain: a learned scalar factor on the output.
    """

    type: str = "mlp"
    stack: int = 5
    hidden_size: int = 2048
    kernel: int = 5
    input_norm: bool = False
    output_norm: str | None = None
    output_scale: float = 1.0
    gain: bool = False

    def __post_init__(self) -> None:
        if self.type not in PROJECTORS:
            raise ValueError(f"unknown projector {self.type!r} (there are {', '.join(sorted(PROJECTORS))})")
        if self.output_norm not in (None, "rms"):
            raise ValueError(f"unknown output_norm {self.output_norm!r} (there are 'rms' and None)")
        if min(self.stack, self.hidden_size, self.kernel) < 1:
            raise ValueError("stack, hidden_size and kernel of a projector must be at least 1")

    @property
    def field(self) -> int:
        """Frames that one position sees."""
        return PROJECTORS[self.type].field(self)

    def positions(self, frames: int) -> int:
        """Positions that `frames` frames give: the remainder is dropped, but never the whole clip.

        A clip shorter than `field` frames is padded with zero frames to one position.
        """
        return (max(frames, self.field) - self.field) // self.stack + 1


class Projector(nn.Module):
    """Base of the projectors: frames of d_enc in, positions of d out. Subclasses say what lies between.

    Args:
        settings: what it is.
        encoder_size: d_enc.
        decoder_size: d.
    """

    has_hidden: ClassVar[bool] = True
    stacks: ClassVar[bool] = True
    """Whether a position is made of its own `stack` frames alone, so that `transform` can be called."""

    def __init__(self, settings: ProjectorSettings, encoder_size: int, decoder_size: int) -> None:
        super().__init__()
        self.settings = settings
        size = self.input_size(encoder_size)
        self.norm = nn.LayerNorm(size) if settings.input_norm else nn.Identity()
        self.output = nn.Linear(settings.hidden_size if self.has_hidden else size, decoder_size)
        self.gain = nn.Parameter(torch.ones(())) if settings.gain else None

    @staticmethod
    def field(settings: ProjectorSettings) -> int:
        """Frames that one position sees."""
        return settings.stack

    def input_size(self, encoder_size: int) -> int:
        """Width of what enters the first layer."""
        return encoder_size * self.settings.stack

    def gather(self, clips: Sequence[Tensor]) -> Tensor:
        """Stack neighbouring frames: clips of (frames, d_enc) to (positions of all clips, stack · d_enc)."""
        size = self.settings.stack
        whole = [clip[: len(clip) // size * size].reshape(len(clip) // size, -1) for clip in clips]
        return torch.cat(whole)

    def project(self, clips: Sequence[Tensor]) -> Tensor:
        """Clips of (frames, d_enc), each at least `field` frames, to (positions of all clips, d)."""
        return self.transform(self.gather(clips))

    def transform(self, stacked: Tensor) -> Tensor:
        """Stacked frames (positions, stack · d_enc) to (positions, d), before `finish`."""
        raise NotImplementedError

    def forward(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Project each clip of (frames, d_enc) to (`settings.positions(frames)`, d)."""
        counts = [self.settings.positions(len(clip)) for clip in clips]
        short = self.settings.field
        padded = [F.pad(clip, (0, 0, 0, max(0, short - len(clip)))) for clip in clips]
        return list(self.finish(self.project(padded)).split(counts))

    def finish(self, positions: Tensor) -> Tensor:
        """Normalise and scale the outputs, (positions, d)."""
        if self.settings.output_norm == "rms":
            positions = F.rms_norm(positions, positions.shape[-1:], eps=1e-6)
        if self.gain is not None:
            positions = positions * self.gain
        return positions * self.settings.output_scale


class LinearProjector(Projector):
    """Stacked frames through one linear layer."""

    has_hidden = False

    def transform(self, stacked: Tensor) -> Tensor:
        """See `Projector.transform`."""
        return self.output(self.norm(stacked))


class MlpProjector(Projector):
    """Stacked frames through one hidden layer with GELU (SLAM-ASR, arXiv 2402.08846)."""

    def __init__(self, settings: ProjectorSettings, encoder_size: int, decoder_size: int) -> None:
        super().__init__(settings, encoder_size, decoder_size)
        self.hidden = nn.Linear(self.input_size(encoder_size), settings.hidden_size)

    def transform(self, stacked: Tensor) -> Tensor:
        """See `Projector.transform`."""
        return self.output(F.gelu(self.hidden(self.norm(stacked))))


class ConvProjector(Projector):
    """An unpadded convolution over the frames (kernel `kernel`, stride `stack`), GELU, a linear layer."""

    stacks = False

    def __init__(self, settings: ProjectorSettings, encoder_size: int, decoder_size: int) -> None:
        super().__init__(settings, encoder_size, decoder_size)
        self.conv = nn.Conv1d(encoder_size, settings.hidden_size, settings.kernel, stride=settings.stack)

    @staticmethod
    def field(settings: ProjectorSettings) -> int:
        """Frames that one position sees."""
        return settings.kernel

    def input_size(self, encoder_size: int) -> int:
        """Width of what enters the first layer."""
        return encoder_size

    def project(self, clips: Sequence[Tensor]) -> Tensor:
        """See `Projector.project`."""
        frames = pad_sequence([self.norm(clip) for clip in clips], batch_first=True).transpose(1, 2)
        hidden = F.gelu(self.conv(frames)).transpose(1, 2)
        # Unpadded, so the first outputs of a clip see nothing of the padding behind it.
        whole = [row[: self.settings.positions(len(clip))] for row, clip in zip(hidden, clips, strict=True)]
        return self.output(torch.cat(whole))


PROJECTORS: dict[str, type[Projector]] = {"linear": LinearProjector, "mlp": MlpProjector, "conv": ConvProjector}


# --- Wording --------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return text.strip()


def _lower(text: str) -> str:
    """Lower case without punctuation and symbols; apostrophes stay, dashes and slashes part words."""
    text = "".join(_spoken(character) for character in text.lower().replace("’", "'"))
    return " ".join(text.split())


def _spoken(character: str) -> str:
    category = unicodedata.category(character)
    if character == "'" or category[0] not in "PS":
        return character
    return " " if category == "Pd" or character == "/" else ""


RESPONSE_STYLES: dict[str, Callable[[str], str]] = {"plain": _plain, "lower": _lower}


class Wording:
    """How a model is asked and how it answers; shared by config and processor."""

    prompt_template: str
    response_style: str
    end_token: str

    def format_prompt(self, instruction: str) -> str:
        """The prompt for one clip, with one audio token where the clip goes."""
        return self.prompt_template.replace("{audio}", AUDIO_TOKEN).replace("{instruction}", instruction)

    def format_response(self, text: str) -> str:
        """`text` as the decoder was trained to write it, without the `end_token` that follows."""
        return RESPONSE_STYLES[self.response_style](text)

    def _set_wording(self, prompt_template: str, response_style: str, end_token: str) -> None:
        if "{audio}" not in prompt_template:
            raise ValueError("the prompt template has no {audio}")
        if response_style not in RESPONSE_STYLES:
            raise ValueError(f"unknown response style {response_style!r} ({', '.join(RESPONSE_STYLES)})")
        self.prompt_template, self.response_style, self.end_token = prompt_template, response_style, end_token


# --- Config ---------------------------------------------------------------------------------------


class SpeechLLMConfig(PreTrainedConfig, Wording):
    """Configuration of a `SpeechLLM`.

    Args:
        encoder_config: config of the encoder (Whisper, wav2vec 2.0, HuBERT, WavLM).
        text_config: config of the decoder (any causal LM).
        projector: the arguments of `ProjectorSettings`.
        audio_token_id: id that stands where audio goes; it may lie outside the decoder's embedding table.
        prompt_template: text with `{audio}` and `{instruction}`; every special token is written out.
        response_style: a key of `RESPONSE_STYLES`: how the decoder was trained to write.
        end_token: what ends the response.
        encoder_window: an `EncoderWindow`; models from before this was an option have "full".
        lora_merged: low-rank updates are folded into the decoder, so it is not the base model any more.
    """

    model_type = "shoal_speech_llm"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        projector: dict[str, Any] | None = None,
        audio_token_id: int = -1,
        prompt_template: str = CHATML_TEMPLATE,
        response_style: str = "plain",
        end_token: str = "<|im_end|>",
        encoder_window: EncoderWindow = "full",
        lora_merged: bool = False,
        **kwargs: Any,
    ) -> None:
        if encoder_window not in (known := get_args(EncoderWindow)):
            raise ValueError(f"unknown encoder window {encoder_window!r} ({', '.join(known)})")
        self.encoder_window: EncoderWindow = encoder_window
        self.projector = dict(projector or {})
        self.audio_token_id = audio_token_id
        self._set_wording(prompt_template, response_style, end_token)
        self.lora_merged = lora_merged
        super().__init__(**kwargs)
        # Last, because the base class resets how the configs it finds compute attention.
        self.encoder_config = _sub_config(encoder_config, "whisper")
        self.text_config = _sub_config(text_config, "llama")

    @property
    def projector_settings(self) -> ProjectorSettings:
        """`projector`, checked.

        Raises:
            ValueError: an unknown projector or a setting out of range.
        """
        try:
            return ProjectorSettings(**self.projector)
        except TypeError as error:
            raise ValueError(f"projector settings: {error}") from None


def _sub_config(config: PreTrainedConfig | dict[str, Any] | None, default: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    fields = dict(config or {})
    return AutoConfig.for_model(fields.pop("model_type", default), **fields)


# --- Model ----------------------------------------------------------------------------------------


class SpeechLLM(PreTrainedModel, GenerationMixin):
    """Speech encoder, projector and causal LM in one model.

    Args:
        config: what it is.
        encoder: a loaded encoder to use instead of a freshly initialised one.
        decoder: a loaded causal LM to use instead of a freshly initialised one.
    """

    config: SpeechLLMConfig
    config_class = SpeechLLMConfig
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]

    def __init__(
        self, config: SpeechLLMConfig, encoder: PreTrainedModel | None = None, decoder: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        self.encoder = _fresh_encoder(config.encoder_config) if encoder is None else _loaded(encoder)
        self.decoder = AutoModelForCausalLM.from_config(config.text_config) if decoder is None else _loaded(decoder)
        settings = config.projector_settings
        sizes = config.encoder_config.hidden_size, config.text_config.hidden_size
        self.projector = PROJECTORS[settings.type](settings, *sizes)
        self._decoder_arguments = set(inspect.signature(self.decoder.forward).parameters)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Projector) and module.gain is not None:
            nn.init.ones_(module.gain)

    def get_decoder(self) -> nn.Module:
        """The decoder stack without its head."""
        return self.decoder.get_decoder()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's embedding table."""
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's embedding table."""
        self.decoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's LM head."""
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the decoder's LM head."""
        self.decoder.set_output_embeddings(new_embeddings)

    def get_audio_features(
        self,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        audio_samples: Tensor | None = None,
    ) -> list[Tensor]:
        """Encode and project clips, given as for `encode`; one (n_i, d) tensor for each."""
        return self.projector(self.encode(input_features, input_values, audio_samples))

    def encode(
        self,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        audio_samples: Tensor | None = None,
    ) -> list[Tensor]:
        """Encode clips: what the projector is given.

        Args:
            input_features: (clips, windows, mels, mel frames) for Whisper; a clip uses its first ones.
            input_values: (clips, samples) for waveform encoders, zero-padded on the right.
            audio_samples: (clips,) number of samples of each clip.

        Returns:
            One (frames_i, d_enc) tensor for each clip.

        Raises:
            ValueError: not exactly one kind of audio input, or no `audio_samples`.
        """
        if audio_samples is None or (input_features is not None and input_values is not None):
            raise ValueError("give audio_samples and one of input_features and input_values")
        samples = [int(count) for count in audio_samples]
        if input_features is not None:
            return self._encode_mel(input_features, samples)
        if input_values is not None:
            return self._encode_waveform(input_values, samples)
        raise ValueError("give input_features or input_values")

    def _encode_mel(self, features: Tensor, samples: list[int]) -> list[Tensor]:
        """Whisper states (frames, d_enc) of each clip; frames behind the end of the audio are left out."""
        geometry = FrameGeometry.of(self.config.encoder_config, self.config.encoder_window)
        windows = [geometry.windows(count) for count in samples]
        used = torch.cat([clip[: len(parts)] for clip, parts in zip(features, windows, strict=True)])
        used = used.to(self.encoder.dtype)
        if geometry.heard == "full":
            encoded = self.encoder(used).last_hidden_state
        else:
            encoded = _whisper_states(self.encoder, used, [geometry.encoded(part) for clip in windows for part in clip])
        states = iter(encoded)
        return [torch.cat([next(states)[: geometry.frames(part)] for part in parts]) for parts in windows]

    def _encode_waveform(self, values: Tensor, samples: list[int]) -> list[Tensor]:
        """States (frames, d_enc) of each clip from an encoder that reads the waveform."""
        values = values.to(self.encoder.dtype)
        if _mixes_padding(self.config.encoder_config):
            single = [self.encoder(clip[None, :count]) for clip, count in zip(values, samples, strict=True)]
            return [output.last_hidden_state[0] for output in single]
        lengths = torch.tensor(samples, device=values.device)
        mask = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        states = self.encoder(values, attention_mask=mask.long()).last_hidden_state
        geometry = FrameGeometry.of(self.config.encoder_config)
        return [clip[: geometry.total(count)] for clip, count in zip(states, samples, strict=True)]

    def embed(self, input_ids: Tensor, **audio_inputs: Tensor | None) -> Tensor:
        """Input embeddings, audio in its places.

        Args:
            input_ids: (B, T); `config.audio_token_id` stands wherever a projected position goes.
            audio_inputs: see `get_audio_features`; clips in the order of their places, row by row.

        Returns:
            (B, T, d).

        Raises:
            ValueError: the clips give another number of positions than there are places.
        """
        audio = input_ids == self.config.audio_token_id
        # The audio id may lie outside the table, whose size stays that of the base model.
        embeds = self.get_input_embeddings()(input_ids.masked_fill(audio, 0))
        clips = self.get_audio_features(**audio_inputs) if _any_given(audio_inputs) else []
        slots, positions = int(audio.sum()), sum(len(clip) for clip in clips)
        if slots != positions:
            raise ValueError(f"the text has {slots} audio positions but the audio gives {positions}")
        if not clips:
            return embeds
        return embeds.masked_scatter(audio[..., None], torch.cat(clips).to(embeds.device, embeds.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        audio_samples: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the model: arguments of every causal LM, and the audio arguments of `get_audio_features`.

        `use_cache` and whatever else the decoder takes is passed on to it. Audio positions in `labels` (B, T) do not
        count in the loss, nor do those of -100.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`, or audio without its places.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            audio = {"input_features": input_features, "input_values": input_values}
            # `generate` passes the lengths on after the prefill, when the audio itself is in the cache.
            lengths = audio_samples if _any_given(audio) else None
            inputs_embeds = self.embed(input_ids, **audio, audio_samples=lengths)
        if position_ids is None and inputs_embeds is not None:
            position_ids = _positions(attention_mask, inputs_embeds.shape[1])
        optional = {"position_ids": position_ids, "logits_to_keep": logits_to_keep}
        kwargs |= {name: value for name, value in optional.items() if name in self._decoder_arguments}
        if labels is not None:
            kwargs["labels"] = labels.masked_fill(labels == self.config.audio_token_id, IGNORED_LABEL)
        return self.decoder(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the merged model, with this file beside it.

        Raises:
            ValueError: low-rank updates are not merged; the folder would load without them.
        """
        if any(".lora_" in name for name, _ in self.named_parameters()):
            raise ValueError("the model has unmerged LoRA weights; merge them first, or save adapters only")
        # `register_for_auto_class` names one class; whoever asks AutoModel gets the same.
        code = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
        self.config.auto_map = (getattr(self.config, "auto_map", None) or {}) | {"AutoModel": code}
        super().save_pretrained(save_directory, **kwargs)


def _fresh_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights; of Whisper, only the encoder half."""
    FrameGeometry.of(config)
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(config)
    return AutoModel.from_config(config)


def _loaded(part: PreTrainedModel) -> PreTrainedModel:
    """Mark a loaded part so that `post_init` leaves its weights alone."""
    for module in part.modules():
        module._is_hf_initialized = True
    return part


def _whisper_states(encoder: Any, features: Tensor, frames: list[int]) -> Tensor:
    """Whisper's encoder on less than its window, whose own forward pass takes nothing but whole windows.

    Each window gives what it would give alone: as behind the end of what the convolutions see, there are zeros behind
    its own end, and no position attends to those behind it.

    Args:
        encoder: a `WhisperEncoder`.
        features: (windows, mels, mel frames).
        frames: how many states each window has.

    Returns:
        (windows, the most of `frames`, d_enc).
    """
    longest = max(frames)
    present = torch.arange(longest, device=features.device) < torch.tensor(frames, device=features.device)[:, None]
    mel = present.repeat_interleave(2, dim=1)[:, None]
    hidden = F.gelu(encoder.conv1(features[..., : 2 * longest] * mel)) * mel
    hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2) + encoder.embed_positions.weight[:longest]
    mask = create_bidirectional_mask(encoder.config, hidden, present)
    for layer in encoder.layers:
        hidden = layer(hidden, mask)
    return encoder.layer_norm(hidden)


def _mixes_padding(config: PreTrainedConfig) -> bool:
    """Whether padding behind a clip changes its states, so that each clip must be encoded by itself.

    Group normalisation runs over time without a mask; the adapter's convolutions see one frame past the end.
    """
    return getattr(config, "feat_extract_norm", "group") == "group" or getattr(config, "add_adapter", False)


def _any_given(inputs: dict[str, Any]) -> bool:
    return any(value is not None for value in inputs.values())


def _positions(attention_mask: Tensor | None, length: int) -> Tensor | None:
    """Position ids of the last `length` columns: 0, 1, 2 … over each row's real positions.

    So left and right padding agree. None where the mask does not say what is real.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]


# --- Processor ------------------------------------------------------------------------------------


class SpeechLLMProcessor(ProcessorMixin, Wording):
    """Turns text and audio into the inputs of a `SpeechLLM`.

    Args:
        feature_extractor: the encoder's.
        tokenizer: the decoder's; the audio token is added if it lacks it, and its end of sequence serves as
            padding if it has none.
        frame_window: see `FrameGeometry`.
        frame_layers: see `FrameGeometry`.
        projector: the arguments of `ProjectorSettings`.
        prompt_template: text with `{audio}` and `{instruction}`.
        response_style: a key of `RESPONSE_STYLES`.
        end_token: what ends the response.
        encoder_window: an `EncoderWindow`.
    """

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        frame_window: int | None = None,
        frame_layers: Sequence[Sequence[int]] = (),
        projector: dict[str, Any] | None = None,
        prompt_template: str = CHATML_TEMPLATE,
        response_style: str = "plain",
        end_token: str = "<|im_end|>",
        encoder_window: EncoderWindow = "full",
        chat_template: str | None = None,
    ) -> None:
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self._set_wording(prompt_template, response_style, end_token)
        if AUDIO_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.audio_token, self.audio_token_id = AUDIO_TOKEN, tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        self.frame_window, self.frame_layers = frame_window, [list(layer) for layer in frame_layers]
        self.projector, self.encoder_window = dict(projector or {}), encoder_window
        layers = tuple((layer[0], layer[1]) for layer in frame_layers)
        self._geometry = FrameGeometry(frame_window, layers, encoder_window)
        self._settings = ProjectorSettings(**self.projector)

    @classmethod
    def of(cls, config: SpeechLLMConfig, feature_extractor: Any, tokenizer: Any) -> SpeechLLMProcessor:
        """The processor that fits a model of this config; sets `config.audio_token_id`."""
        geometry = FrameGeometry.of(config.encoder_config)
        processor = cls(
            feature_extractor,
            tokenizer,
            frame_window=geometry.window,
            frame_layers=geometry.layers,
            projector=config.projector,
            prompt_template=config.prompt_template,
            response_style=config.response_style,
            end_token=config.end_token,
            encoder_window=config.encoder_window,
        )
        config.audio_token_id = processor.audio_token_id
        return processor

    def positions(self, samples: int) -> int:
        """Positions that a clip of `samples` samples (16 kHz) takes.

        Raises:
            ValueError: the clip is empty.
        """
        if samples < 1:
            raise ValueError("a clip without samples has no position in the text")
        return self._settings.positions(self._geometry.total(max(samples, self._geometry.shortest)))

    def encode(self, text: str, counts: Sequence[int] = ()) -> list[int]:
        """Token ids of `text`; its i-th audio token becomes `counts[i]` of them.

        What lies between audio tokens is tokenized by itself, and no special tokens are added.

        Raises:
            ValueError: another number of audio tokens than counts.
        """
        pieces = text.split(AUDIO_TOKEN)
        tokens = len(pieces) - 1
        if tokens != len(counts):
            raise ValueError(f"the text has {tokens} {AUDIO_TOKEN} but there are {len(counts)} clips")
        ids = [self.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
        spans = [[self.audio_token_id] * count for count in counts] + [[]]
        return [token for piece, span in zip(ids, spans, strict=True) for token in piece + span]

    def __call__(
        self,
        text: str | Sequence[str],
        audio: npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]] | None = None,
        padding_side: str = "left",
        **kwargs: Any,
    ) -> BatchFeature:
        """Model inputs for a batch, as tensors.

        Args:
            text: B texts, each with one audio token for each of its clips.
            audio: the clips (samples,) at 16 kHz in the order of their tokens, over all texts.
            padding_side: "left" (to generate) or "right".
            kwargs: `padding` and `return_tensors`, which callers of other processors pass, change nothing.

        Returns:
            `input_ids` and `attention_mask` (B, T); with audio, `audio_samples` (clips,) and `input_features`
            (clips, windows, mels, mel frames of the longest) or `input_values` (clips, samples).

        Raises:
            ValueError: tokens and clips do not match, or a clip is empty or not one-dimensional.
        """
        unknown = set(kwargs) - {"padding", "return_tensors"}
        if unknown:
            raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
        texts = [text] if isinstance(text, str) else list(text)
        audios = [audio] if isinstance(audio, np.ndarray) else audio
        clips = [np.asarray(clip, dtype=np.float32) for clip in (audios if audios is not None else ())]
        if any(clip.ndim != 1 for clip in clips):
            raise ValueError("a clip must be one-dimensional: (samples,), mono, 16 kHz")
        counts = iter([self.positions(len(clip)) for clip in clips])
        ids = self._encode_all(texts, counts, len(clips))
        batch = self.tokenizer.pad({"input_ids": ids}, padding_side=padding_side, return_tensors="pt")
        return BatchFeature({**batch, **(self.audio_inputs(clips) if clips else {})})

    def _encode_all(self, texts: list[str], counts: Any, clips: int) -> list[list[int]]:
        tokens = [text.count(AUDIO_TOKEN) for text in texts]
        if sum(tokens) != clips:
            raise ValueError(f"the texts have {sum(tokens)} {AUDIO_TOKEN} but there are {clips} clips")
        pairs = zip(texts, tokens, strict=True)
        return [self.encode(text, [next(counts) for _ in range(number)]) for text, number in pairs]

    def audio_inputs(self, clips: Sequence[npt.NDArray[np.float32]]) -> dict[str, Tensor]:
        """The audio part of the inputs, see `__call__`."""
        shortest = self._geometry.shortest
        padded = [np.pad(clip, (0, max(0, shortest - len(clip)))) for clip in clips]
        samples = torch.tensor([len(clip) for clip in padded])
        if self._geometry.window is None:
            # One by one, so that each is normalised over itself alone.
            values = [self._extract(clip, padding=False)["input_values"][0] for clip in padded]
            return {"input_values": pad_sequence(values, batch_first=True), "audio_samples": samples}
        features = [self._mel_windows(clip) for clip in padded]
        longest = max(mel.shape[-1] for mel in features)
        features = [F.pad(mel, (0, longest - mel.shape[-1])) for mel in features]
        return {"input_features": pad_sequence(features, batch_first=True), "audio_samples": samples}

    def _mel_windows(self, clip: npt.NDArray[np.float32]) -> Tensor:
        """(windows, mels, mel frames) of one clip; what is heard behind its end is silence."""
        size = self._geometry.window or len(clip)
        windows = [clip[start : start + size] for start in range(0, len(clip), size)]
        heard = max(self._geometry.encoded(len(window)) for window in windows) * WHISPER_SAMPLES_PER_FRAME
        return self._extract(windows, padding="max_length", max_length=heard)["input_features"]

    def _extract(self, audio: Any, **padding: Any) -> Any:
        return self.feature_extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt", **padding)

    @property
    def model_input_names(self) -> list[str]:
        """Names of everything `__call__` may return."""
        return ["input_ids", "attention_mask", "input_features", "input_values", "audio_samples"]


SpeechLLMConfig.register_for_auto_class()
SpeechLLM.register_for_auto_class("AutoModelForCausalLM")
SpeechLLMProcessor.register_for_auto_class()

if __name__.startswith("shoal."):
    # With Shoal at hand, its folders load without running the copy of this file that lies in them.
    AutoConfig.register(SpeechLLMConfig.model_type, SpeechLLMConfig, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SpeechLLMConfig, SpeechLLM, exist_ok=True)
