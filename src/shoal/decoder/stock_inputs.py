"""Clips to embedded batches for models that transformers knows: the model's own processor and forward, observed.

The processor writes the prompt; the response is appended, or the transcript put in the place of the audio, as tokens.
The stock forward then runs up to its call of the decoder, which is recorded and not made. What stands in that call
(embeddings with the audio in its place, positions, whatever else a model hands its layers) can be repeated with fewer
layers without running the encoder again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from shoal.data.clip import SAMPLE_RATE
from shoal.errors import ModelError
from shoal.models.batch import Kind, PreparedBatch, TokenRow, on_device, stacked
from shoal.models.contexts import quiet
from shoal.models.families.audio_llm import AudioLLM, Question, Samples
from shoal.models.families.base import needs_family
from shoal.schema import InputKind

if TYPE_CHECKING:
    from shoal.data.clip import Clip
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task


def prepare_native(
    loaded: LoadedModel, clips: Sequence[Clip], task: Task, *, input: InputKind, response: bool, padding_side: str
) -> PreparedBatch:
    """See `shoal.decoder.prepare.prepare`; for a model of an `AudioLLM` family.

    Raises:
        ModelError: there is no processor, or it cannot make the model's inputs.
    """
    family = _family(loaded)
    if family.encodes_one_by_one and len(clips) > 1:
        options: dict[str, Any] = {"input": input, "response": response, "padding_side": padding_side}
        return stacked([prepare_native(loaded, [clip], task, **options) for clip in clips], padding_side)
    if input == "speech":
        for clip in clips:
            loaded.check_length(len(clip.samples) / SAMPLE_RATE, clip.row)
    samples = [_resampled(clip.samples, family.sampling_rate(loaded.processor)) for clip in clips]
    audio = samples if input == "speech" else [_placeholder(family, loaded.processor)] * len(clips)
    with torch.inference_mode():
        names = [clip.id for clip in clips]
        own = family.own_batch(
            loaded.model, loaded.processor, names, audio, response=response, padding_side=padding_side
        )
        if own is not None:
            return own
        languages = loaded.languages_told(task, [clip.row.lang for clip in clips])
        into = next(iter(loaded.languages_told(task, [task.settings.target_lang])), None)
        question = Question(task.instruction, languages, into, transcribe=task.transcribes)
        inputs = request(loaded, family, audio, question)
        lines = _lines(inputs, family, family.audio_tokens(loaded.model, loaded.processor))
        if input == "text":
            inputs = family.without_audio(inputs)
        if task.plain_text:
            lines = _plain_text(loaded, clips, task, response=response)
        else:
            lines = _prompted(loaded, lines, clips, audio, task, input=input, response=response)
        return _batch(loaded, family, names, inputs, lines, padding_side)


def _prompted(
    loaded: LoadedModel,
    lines: list[TokenRow],
    clips: Sequence[Clip],
    audio: Sequence[Samples],
    task: Task,
    *,
    input: InputKind,
    response: bool,
) -> list[TokenRow]:
    """The lines of a request, with the transcript in the place of the audio for text, and with the response."""
    family = _family(loaded)
    if input == "text":
        texts = [_ids(loaded, task.transcript(clip.row)) for clip in clips]
        lines = [_with_text(line, ids, loaded.ref) for line, ids in zip(lines, texts, strict=True)]
    if response:
        targets = [_ids(loaded, family.response(task.target(clip.row))) for clip in clips]
        lines = [
            family.with_response(loaded.processor, line, ids, clip)
            for line, ids, clip in zip(lines, targets, audio, strict=True)
        ]
    return lines


ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
"""What ends a text in pretraining, where the end token of a chat model ends a turn instead."""


def _plain_text(loaded: LoadedModel, clips: Sequence[Clip], task: Task, *, response: bool) -> list[TokenRow]:
    """Lines of plain text: not the form in which the model writes an answer, since nothing is asked."""
    nothing = torch.zeros(0, dtype=torch.long)
    first = TokenRow(nothing, nothing).then(first_ids(loaded.tokenizer), Kind.BEFORE)
    if not response:
        return [first] * len(clips)
    return [first.then(_ids(loaded, task.target(clip.row)), Kind.TEXT) for clip in clips]


def first_ids(tokenizer: Any) -> list[int]:
    """What a text that stands alone is read after, so that its first token is predicted too: one token.

    That is the begin token where the tokeniser itself puts it there. A begin token that it does not put there may be
    one of a chat template, which no text of the pretraining followed (SmolLM2's instruct models name `<|im_start|>`).
    So the others are read after what ended the text before, as in lm-evaluation-harness without a begin token.

    Raises:
        ModelError: the tokeniser has neither.
    """
    begin = getattr(tokenizer, "bos_token_id", None)
    if begin is not None and list(tokenizer("a")["input_ids"])[:1] == [begin]:
        return [int(begin)]
    known = tokenizer.get_vocab()
    ends = [*(known.get(name) for name in ENDS_OF_TEXT), getattr(tokenizer, "eos_token_id", None)]
    for end in ends:
        if end is not None:
            return [int(end)]
    raise ModelError(
        "the tokeniser has neither a begin token nor an end token, so nothing predicts the first token of a text",
        where=str(getattr(tokenizer, "name_or_path", "")) or "--task",
        fix="give the tokeniser an eos_token",
    )


def _family(loaded: LoadedModel) -> AudioLLM:
    loaded.check_fed()
    assert isinstance(loaded.family, AudioLLM)
    return loaded.family


def _resampled(samples: Samples, rate: int) -> Samples:
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    import soxr

    resampled: Samples = soxr.resample(samples, SAMPLE_RATE, rate).astype("float32")
    return resampled


def _placeholder(family: AudioLLM, processor: Any) -> Samples:
    """A quarter of a second of silence: the text input needs the audio's place, not its content."""
    import numpy as np

    return np.zeros(family.sampling_rate(processor) // 4, dtype=np.float32)


def request(loaded: LoadedModel, family: AudioLLM, samples: Sequence[Samples], question: Question) -> dict[str, Any]:
    """`AudioLLM.request` of the loaded model.

    Raises:
        ModelError: its processor cannot make the inputs.
    """
    try:
        with quiet():
            return family.request(loaded.model, loaded.processor, samples, question)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise ModelError(
            f"its processor ({type(loaded.processor).__name__}) cannot make the inputs ({reason})",
            where=loaded.ref,
            fix="check that the processor's files belong to these weights",
        ) from error


def _ids(loaded: LoadedModel, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def _lines(inputs: dict[str, Any], family: AudioLLM, audio: Sequence[int]) -> list[TokenRow]:
    """Every row's real tokens, marked audio or prompt."""
    lines = []
    tokens, masks = (inputs[name].cpu() for name in family.tokens)
    for ids, mask in zip(tokens, masks.bool(), strict=True):
        kept = ids[mask]
        is_audio = torch.isin(kept, torch.tensor(audio, dtype=kept.dtype))
        lines.append(TokenRow(kept, torch.where(is_audio, int(Kind.AUDIO), int(Kind.PROMPT))))
    return lines


def _with_text(line: TokenRow, ids: Sequence[int], ref: str) -> TokenRow:
    """The line with `ids` where the audio was."""
    positions = (line.kinds == Kind.AUDIO).nonzero()[:, 0]
    if not len(positions):
        raise ModelError("its prompt has no place for the audio", where=ref, fix="use the speech input")
    return line.replaced(int(positions[0]), int(positions[-1]) + 1, ids, Kind.AUDIO)


def _batch(
    loaded: LoadedModel,
    family: AudioLLM,
    names: list[str],
    inputs: dict[str, Any],
    lines: list[TokenRow],
    padding_side: str,
) -> PreparedBatch:
    pad = getattr(loaded.tokenizer, "pad_token_id", None) or 0
    # Where audio is added to every token, both begin at the first position.
    ids, kinds = _padded(lines, pad, "right" if family.entry == "added" else padding_side)
    with_ids = family.with_tokens(_retyped(inputs, family, kinds), ids, (kinds != Kind.PAD).long())
    model_inputs = on_device(with_ids, loaded.device, loaded.audio_dtype)
    call = family.call(loaded.model, model_inputs)
    embeds = call.get("inputs_embeds")
    if embeds is not None and embeds.shape[:2] != ids.shape:
        problem = f"its decoder sees {embeds.shape[1]} positions where its processor made {ids.shape[1]}"
        raise needs_family(loaded.model, problem)
    tokens = torch.where((kinds == Kind.PAD) | (kinds == Kind.AUDIO), -1, ids)
    return PreparedBatch(
        names,
        torch.zeros((*ids.shape, 0)) if embeds is None else embeds,
        kinds.to(loaded.device, torch.uint8),
        tokens.to(loaded.device),
        call=call,
        inputs=model_inputs,
    )


def _padded(lines: list[TokenRow], pad: int, side: str) -> tuple[Tensor, Tensor]:
    """(B, T) token ids and kinds."""
    options: dict[str, Any] = {"batch_first": True, "padding_side": side}
    ids = pad_sequence([line.ids for line in lines], padding_value=pad, **options)
    return ids, pad_sequence([line.kinds for line in lines], padding_value=int(Kind.PAD), **options)


def _retyped(inputs: dict[str, Any], family: AudioLLM, kinds: Tensor) -> dict[str, Any]:
    """The inputs with the types of the new tokens, where the model wants types."""
    typed = dict(inputs)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in typed:
            marks = typed[name][inputs[family.tokens[1]].bool()]
            audio = int(marks.max()) if len(marks) else 0
            typed[name] = torch.where(kinds == Kind.AUDIO, audio, 0)
    return typed
