"""Clips to embedded batches: what stands where, in which scope.

One layout serves both inputs, so that speech and text differ in the audio slot and nowhere else::

    prefix (prompt) · audio slot: projected audio, or the transcript (audio) · suffix (prompt) · response (text)

The pieces are tokenised apart, because a tokeniser may merge characters across a border and move it.

A task whose response stands alone has another layout, the same for all models::

    one token (see `first_ids`) · response (text)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from shoal.decoder.stock_inputs import first_ids, prepare_native
from shoal.errors import ModelError, UsageError
from shoal.models.batch import Kind, PreparedBatch, on_device
from shoal.schema import InputKind

if TYPE_CHECKING:
    from shoal.data.clip import Clip
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

_SLOT = "\uf8ffSLOT\uf8ff"
"""Stands for the audio while a chat template is rendered; private-use characters occur in no template."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of positions of one kind: token ids (n,), or vectors (n, d) with no tokens behind them."""

    kind: Kind
    ids: Tensor | None = None
    vectors: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The prompt around the audio slot, as text."""

    prefix: str
    suffix: str


def frame_of(model: LoadedModel, instruction: str) -> Frame:
    """The prompt around the audio slot for `instruction`.

    A SpeechLLM brings its template. A text LLM is asked through its chat template with the slot first and the
    instruction below it; without a chat template the same is said in plain lines.
    """
    if model.kind == "speech_llm":
        template = str(model.model.config.prompt_template).replace("{instruction}", instruction)
        return _split(template, "{audio}", model.ref)
    model.check_fed()
    content = f"{_SLOT}\n{instruction}"
    if getattr(model.tokenizer, "chat_template", None):
        rendered = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return _split(str(rendered), _SLOT, model.ref)
    return Frame(model.tokenizer.bos_token or "", f"\n{instruction}\n")


def _split(template: str, slot: str, ref: str) -> Frame:
    prefix, separator, suffix = template.partition(slot)
    if not separator:
        raise ModelError(f"the prompt template has no place for the audio ({slot})", where=ref)
    return Frame(prefix, suffix)


def prepare(
    model: LoadedModel,
    clips: Sequence[Clip],
    task: Task,
    *,
    input: InputKind = "speech",
    response: bool = False,
    padding_side: Literal["left", "right"] = "left",
) -> PreparedBatch:
    """Embed `clips` for the decoder.

    Args:
        model: the model whose embedding table, encoder and projector are used.
        clips: B utterances.
        task: gives instruction and response.
        input: what fills the audio slot.
        response: append the response (teacher forcing); without it the batch ends where generation starts.
        padding_side: `left` for generation, either for measuring.

    Raises:
        ModelError: speech for a model without an encoder.
        UsageError: an input that the task does not take.
    """
    _check_input(task, input)
    if model.kind == "audio_llm":
        batch = prepare_native(model, clips, task, input=input, response=response, padding_side=padding_side)
        return replace(batch, ends=batch.ends and not task.plain_text)
    with torch.inference_mode():
        rows = _plain_text(model, clips) if task.plain_text else _prompted(model, clips, task, input)
        if response:
            for row, clip in zip(rows, clips, strict=True):
                row.append(_tokens(model, Kind.TEXT, _response(model, task, clip)))
        batch = _assemble(model, [clip.id for clip in clips], rows, padding_side)
        return replace(batch, ends=not task.plain_text)


def _response(model: LoadedModel, task: Task, clip: Clip) -> str:
    """The right answer as the model writes its answers; a text that stands alone is the same for all models."""
    target = task.target(clip.row)
    return target if task.plain_text else model.response_text(target)


def _check_input(task: Task, input: InputKind) -> None:
    if input not in task.inputs:
        raise UsageError(
            f"the task {task.name} does not take the input {input!r}",
            where="--input",
            fix=f"use {', '.join(task.inputs)}",
        )


def _prompted(model: LoadedModel, clips: Sequence[Clip], task: Task, input: InputKind) -> list[list[Segment]]:
    """Every clip in its prompt, up to where the response begins."""
    frame = frame_of(model, task.instruction)
    slots = _speech_slots(model, clips) if input == "speech" else _text_slots(model, clips, task)
    prefix, suffix = (_tokens(model, Kind.PROMPT, text) for text in (frame.prefix, frame.suffix))
    return [[prefix, slot, suffix] for slot in slots]


def _plain_text(model: LoadedModel, clips: Sequence[Clip]) -> list[list[Segment]]:
    """What stands before a text, for every clip."""
    ids = torch.tensor(first_ids(model.tokenizer), dtype=torch.long)
    return [[Segment(Kind.BEFORE, ids=ids)] for _ in clips]


def _tokens(model: LoadedModel, kind: Kind, text: str) -> Segment:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return Segment(kind, ids=torch.tensor(ids, dtype=torch.long))


def _text_slots(model: LoadedModel, clips: Sequence[Clip], task: Task) -> list[Segment]:
    return [_tokens(model, Kind.AUDIO, model.response_text(task.transcript(clip.row))) for clip in clips]


def _speech_slots(model: LoadedModel, clips: Sequence[Clip]) -> list[Segment]:
    if model.processor is None:
        raise ModelError("this model has no encoder, so it cannot hear", where=model.ref, fix="use the text input")
    projected = model.audio_cache.get(clips, lambda missing: _encode(model, missing))
    return [Segment(Kind.AUDIO, vectors=vectors) for vectors in projected]


def _encode(model: LoadedModel, clips: Sequence[Clip]) -> list[Tensor]:
    """Projected audio (n, d) of each clip."""
    features: dict[str, Any] = model.processor.audio_inputs([clip.samples for clip in clips])  # type: ignore[union-attr]
    projected: list[Tensor] = model.model.get_audio_features(**on_device(features, model.device, model.dtype))
    return projected


def _assemble(model: LoadedModel, names: list[str], rows: list[list[Segment]], padding_side: str) -> PreparedBatch:
    table = model.model.get_input_embeddings()
    lengths = [sum(_length(segment) for segment in row) for row in rows]
    shape = (len(rows), max(lengths))
    embeds = torch.zeros((*shape, table.weight.shape[-1]), dtype=table.weight.dtype, device=model.device)
    kinds = torch.zeros(shape, dtype=torch.uint8)
    tokens = torch.full(shape, -1, dtype=torch.long)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        at = shape[1] - length if padding_side == "left" else 0
        for segment in row:
            span = slice(at, at + _length(segment))
            kinds[number, span] = int(segment.kind)
            if segment.vectors is not None:
                embeds[number, span] = segment.vectors.to(embeds)
            elif segment.ids is not None and len(segment.ids):
                embeds[number, span] = table(segment.ids.to(model.device))
                tokens[number, span] = segment.ids
            at = span.stop
    batch = PreparedBatch(names, embeds, kinds.to(model.device), tokens.to(model.device))
    return _with_tokens(batch) if model.family.reads_tokens(model.model) else batch


def _with_tokens(batch: PreparedBatch) -> PreparedBatch:
    """The batch for a decoder that is called with the tokens: a text model's, whose positions all have one."""
    inputs = {"input_ids": batch.token_ids.clamp(min=0), "attention_mask": batch.attention_mask}
    return replace(batch, call=inputs | {"position_ids": batch.position_ids}, inputs=inputs)


def _length(segment: Segment) -> int:
    return len(segment.ids if segment.vectors is None else segment.vectors)  # type: ignore[arg-type]
