"""The talker of Qwen2.5-Omni: it reads the thinker's states and writes speech tokens, of which a vocoder makes a wave.

What the talker is given follows `generate` of the class (transformers, Qwen2.5-Omni; Xu et al. 2025): the prompt and
the reply as embedding and last state of the thinker, one token of the reply beside each speech token, then the end of
the text, then padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import ManifestError, ModelError
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.families.audio_llm import Samples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from shoal.data.clip import Row

RATE = 24_000
"""Hz, of the vocoder's waves; no config says so, the model card does."""
SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
"""Without this system prompt the model may not speak as it should, its authors say."""
FIELD = "speech_tokens"
"""The manifest's field for the speech tokens of a clip: what makes them of audio is not published."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What was said."""

    tokens: list[int]
    """Speech tokens, without the end."""
    samples: Samples
    """(n,) at `RATE`."""


def check_talks(model: PreTrainedModel) -> None:
    """Make sure that the checkpoint has a talker, a vocoder and a voice.

    Raises:
        ModelError: one of them is not there.
    """
    if not getattr(model, "has_talker", False) or not getattr(model, "speaker_map", None):
        raise ModelError(
            "it has no talker with a voice, so it does not speak",
            where=type(model).__name__,
            fix="give the whole checkpoint, with enable_audio_output in its config and spk_dict.pt beside it",
        )


def check_speech_tokens(row: Row) -> None:
    """Make sure that a row holds speech tokens.

    Raises:
        ManifestError: it holds none, or what cannot be any.
    """
    value = row.fields.get(FIELD)
    if value is None:
        raise ManifestError(
            f"no {FIELD}; what makes Qwen's speech tokens of audio is not published",
            where=row.place,
            fix=f"add the field {FIELD} (docs/tasks.md), or give --asr and {FIELD} in no row",
        )
    if not isinstance(value, list) or not value or any(type(token) is not int for token in value):
        raise _strange(row, "is not a list of whole numbers")


def speech_tokens_of(row: Row, talker: Any) -> list[int]:
    """The speech tokens that a row holds, without the end.

    Raises:
        ManifestError: it holds none, or what is none to this talker.
    """
    check_speech_tokens(row)
    tokens: list[int] = row.fields[FIELD]
    invalid = [token for token in tokens if not 0 <= token < talker.codebook_size or token in end_tokens(talker)]
    if invalid:
        raise _strange(row, f"holds {invalid[0]}, which the talker cannot say")
    return tokens


def _strange(row: Row, problem: str) -> ManifestError:
    fix = "write what the unpruned model said, without the end (docs/tasks.md)"
    return ManifestError(f"{FIELD} {problem}", where=row.place, fix=fix)


def end_tokens(talker: Any) -> list[int]:
    """The speech tokens at which `generate` stops."""
    return [talker.codec_pad_token, talker.codec_eos_token]


def forced_batch(
    names: Sequence[str],
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    speech: Sequence[Sequence[int]],
) -> PreparedBatch:
    """A batch for `losses`, padded on the right.

    Args:
        names: of B clips.
        prompts: token ids of what is asked.
        replies: token ids of the words, without their end.
        speech: speech tokens, without the end.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return pad_sequence([torch.tensor(list(row)) for row in rows], batch_first=True, padding_value=value)

    pairs = list(zip(prompts, replies, strict=True))
    ids = padded([[*prompt, *reply] for prompt, reply in pairs], -1)
    kinds = padded(
        [[int(Kind.PROMPT)] * len(prompt) + [int(Kind.TEXT)] * len(reply) for prompt, reply in pairs], int(Kind.PAD)
    )
    inputs = {"input_ids": ids.clamp(min=0), "attention_mask": (ids >= 0).long(), FIELD: padded(speech, -1)}
    return PreparedBatch(
        list(names), torch.zeros((*ids.shape, 0)), kinds.to(torch.uint8), ids, inputs=inputs, ends=False
    )


def losses(model: Any, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the speech tokens and of the end after them; either token that stops `generate` is an end.

    Args:
        model: the whole model.
        batch: from `forced_batch`.

    Returns:
        Nats (N,), and the clips (N,) int64 that they belong to.
    """
    import torch

    speech = batch.inputs[FIELD]
    rows = _inputs(model, batch)
    embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
    columns = torch.arange(embeds.shape[1], device=embeds.device)
    logits = model.talker(
        inputs_embeds=embeds,
        attention_mask=(columns < lengths[:, None]).long(),
        # With positions given, the talker does not add its own first tokens to the last two embeddings.
        position_ids=columns.expand(3, len(rows), -1),
        use_cache=False,
    ).logits.float()
    counts = (speech >= 0).sum(1) + 1
    clips = torch.arange(len(rows), device=embeds.device).repeat_interleave(counts)
    spans = [slice(len(row) - int(count), len(row)) for row, count in zip(rows, counts, strict=True)]
    predicted = torch.cat([logits[clip, span] for clip, span in enumerate(spans)])
    end = speech.new_full((1,), -1)
    tokens = torch.cat([torch.cat([row[row >= 0], end]) for row in speech])
    chosen = predicted.gather(1, tokens.clamp(min=0)[:, None])[:, 0]
    ending = predicted[:, end_tokens(model.talker)].logsumexp(-1)
    return predicted.logsumexp(-1) - torch.where(tokens < 0, ending, chosen), clips


def _inputs(model: Any, batch: PreparedBatch) -> list[Tensor]:
    """What each row of the talker is given, (T, d), before its projection.

    After a prompt of n tokens: its own first two tokens, then the speech tokens; beside them the reply.
    """
    import torch

    thinker, talker, kinds = model.thinker, model.talker, batch.kinds
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    states = thinker(**inputs, output_hidden_states=True, use_cache=False).hidden_states
    read = states[0] + states[-1]
    voice = next(iter(model.speaker_map.values()))
    marks = torch.tensor([int(voice["bos_token"]), talker.text_eos_token, talker.text_pad_token], device=read.device)
    begin, end, pad = thinker.get_input_embeddings()(marks).split(1)
    first = torch.tensor([talker.codec_pad_token, talker.codec_bos_token], device=read.device)
    rows = []
    for row, speech in enumerate(batch.inputs[FIELD]):
        codes = talker.get_input_embeddings()(torch.cat([first, speech[speech >= 0]]))
        prompt, reply = (read[row, kinds[row] == kind] for kind in (Kind.PROMPT, Kind.TEXT))
        beside = torch.cat([begin, reply, end, pad.expand(len(codes), -1)])[: len(codes)]
        rows.append(torch.cat([prompt, beside + codes]))
    return rows


def say(model: Any, inputs: dict[str, Tensor], seconds: float) -> list[Speech]:
    """What the class's own `generate` says, greedily, in the checkpoint's first voice.

    The vocoder starts from noise: here from the same for every clip, so that speech does not depend on other clips.

    Args:
        model: the whole model, with or without all the thinker's layers.
        inputs: `input_ids` and `attention_mask` (B, T) of the prompts, padded on the left.
        seconds: where speech that has not ended is cut, to the token above.
    """
    import torch

    from shoal.models.contexts import quiet

    most = math.ceil(seconds * RATE / _samples_per_token(model.token2wav))
    # `generate` drops a mask of ones (transformers 5.23), and without a mask the talker leaves out its own first
    # tokens, which it was trained with: one more padding position keeps the mask.
    inputs = {name: torch.nn.functional.pad(value, (1, 0)) for name, value in inputs.items()}
    device = inputs["input_ids"].device
    devices = [device] if device.type == "cuda" else []
    with torch.no_grad(), quiet(), torch.random.fork_rng(devices):
        options = {"speaker": next(iter(model.speaker_map)), "thinker_do_sample": False}
        replied = _replies(model, inputs, options)
        spoken: list[Speech] = []
        if bool(replied.any()):
            with _heard(model.token2wav, spoken):
                model.generate(
                    **{name: value[replied] for name, value in inputs.items()},
                    **options,
                    talker_do_sample=False,
                    talker_eos_token_id=end_tokens(model.talker),
                    talker_max_new_tokens=most,
                    # One token of the reply is read beside each speech token.
                    thinker_max_new_tokens=most + 2,
                )
    speeches = iter(spoken)
    return [next(speeches) if has_reply else Speech([], _nothing()) for has_reply in replied.tolist()]


def _replies(model: Any, inputs: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    """(B,) bool: whether the thinker's reply has a first word; `generate` speaks no empty reply."""
    import torch

    first = model.generate(**inputs, **options, generation_mode="text", thinker_max_new_tokens=1)[:, -1]
    ending = model.thinker.generation_config.eos_token_id
    stops = [] if ending is None else [ending] if isinstance(ending, int) else list(ending)
    return ~torch.isin(first, torch.tensor(stops, dtype=first.dtype, device=first.device))


@contextmanager
def _heard(vocoder: Any, spoken: list[Speech]) -> Iterator[None]:
    """`spoken` gets what the vocoder is given and what it makes of it, clip after clip.

    It is given no tokens where the talker ends at once; tokens that it does not have are taken for its last.
    """
    import torch

    decode, last = vocoder.forward, vocoder.code2wav_dit_model.config.num_embeds - 1

    def listening(code: Tensor, **options: Any) -> Tensor:
        torch.manual_seed(0)
        wave = decode(code.clamp(max=last), **options) if code.shape[1] else torch.zeros(0)
        spoken.append(Speech(code[0].tolist(), wave.reshape(-1).float().cpu().numpy()))
        return wave

    vocoder.forward = listening
    try:
        yield
    finally:
        del vocoder.forward


def _samples_per_token(vocoder: Any) -> int:
    config = vocoder.config
    return int(config.dit_config.repeats * math.prod(config.bigvgan_config.upsample_rates))


def _nothing() -> Samples:
    return np.zeros(0, dtype=np.float32)
