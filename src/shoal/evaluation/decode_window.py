"""The clips of a window, answered by one system in all the ways that the task asks for.

`decode` is carried out by `shoal.evaluation.generate`; `choose` and `loss` by `shoal.evaluation.likelihood`, on the
same embedded batches.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.evaluation.engine import prompts_of
from shoal.evaluation.generate import clock, decoded, written
from shoal.evaluation.settings import limit_of
from shoal.evaluation.system_outputs import Output
from shoal.evaluation.window import Likelihoods
from shoal.pruning.in_memory import pruned
from shoal.tasks import Tts

if TYPE_CHECKING:
    from shoal.data import Clip
    from shoal.evaluation.engine import Engine, EngineCache
    from shoal.evaluation.settings import TokenLimit
    from shoal.evaluation.systems import System
    from shoal.evaluation.window import Batch, Window
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

STORE_SECONDS = 2.0
"""Outputs wait this long at most before they are stored: what a kill can lose."""


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """What was decoded for one clip of a batch."""

    batch: Batch
    clip: Clip
    tokens: Sequence[int] = ()
    """Without the end token."""
    truncated: bool = False
    prefill_seconds: float = 0.0
    """This clip's share, as `decode_seconds`."""
    decode_seconds: float = 0.0
    text: str | None = None
    """What a recogniser heard, where the answer is speech; None: the tokens say it."""


def decode_window(
    system: System,
    window: Window,
    ids: Collection[str],
    task: Task,
    limit: TokenLimit,
    *,
    engines: EngineCache,
    group: int,
) -> Iterator[list[Output]]:
    """One output for every clip of `window` whose id is in `ids`, in small groups, as they get ready.

    Args:
        system: answers; its layers are removed while this runs.
        window: embedded clips.
        ids: of the clips to answer; others may be in the window for the sake of other systems.
        task: says by its `answered_by` what is done.
        limit: how many tokens a clip may get.
        engines: decode.
        group: most outputs in a group.
    """
    batches = [batch for batch in window.batches if any(clip.id in ids for clip in batch.clips)]
    with _without(system):
        likelihoods: dict[str, Likelihoods] = {}
        decoded_clips = _decoded_clips(system, batches, ids, task, limit, engines)
        needed = (answer for answer in decoded_clips if answer.clip.id in ids)
        for ready in grouped(needed, most=group, seconds=STORE_SECONDS):
            # Here and not before, so that outputs are stored as they come.
            for answer in ready:
                if answer.clip.id not in likelihoods:
                    of_batch = _likelihoods(system.loaded, answer.batch, task)
                    likelihoods |= zip((clip.id for clip in answer.batch.clips), of_batch, strict=True)
            yield _outputs(system.loaded, task, ready, likelihoods)


def grouped(items: Iterable[DecodedClip], *, most: int, seconds: float) -> Iterator[list[DecodedClip]]:
    """The items in lists of at most `most`; a list is given when it is full or its first item `seconds` old."""
    group: list[DecodedClip] = []
    since = 0.0
    for item in items:
        since = since if group else time.monotonic()
        group.append(item)
        if len(group) >= most or time.monotonic() - since >= seconds:
            yield group
            group = []
    if group:
        yield group


def _without(system: System) -> AbstractContextManager[object]:
    layers, loaded = system.removed, system.loaded
    return pruned(loaded.model, layers, part=system.part, family=loaded.family) if layers else nullcontext()


def _likelihoods(loaded: LoadedModel, batch: Batch, task: Task) -> list[Likelihoods]:
    """The likelihoods that the task asks for, one for each clip of `batch`."""
    if not {"choose", "loss"} & set(task.answered_by):
        return [Likelihoods() for _ in batch.clips]
    from shoal.evaluation.likelihood import likelihoods

    return likelihoods(loaded, batch, task)


def _decoded_clips(
    system: System, batches: Sequence[Batch], ids: Collection[str], task: Task, limit: TokenLimit, engines: EngineCache
) -> Iterator[DecodedClip]:
    """The clips in `ids`, and perhaps others, in the order in which they get ready."""
    loaded = system.loaded
    if "decode" not in task.answered_by:
        for batch in batches:
            yield from (DecodedClip(batch, clip) for clip in batch.clips)
        return
    if isinstance(task, Tts):
        yield from _heard(loaded, batches, task)
        return
    engine = None
    if loaded.engine:
        key = (id(loaded), system.part, tuple(system.removed))
        engine = engines.get(key, loaded.lm, loaded.device.type, eos_ids=loaded.eos_ids)
    if engine is None:
        for batch in batches:
            yield from _decoded_together(loaded, batch, limit)
    else:
        yield from _continuously(engine, loaded, batches, ids, limit)


def _heard(loaded: LoadedModel, batches: Sequence[Batch], task: Tts) -> Iterator[DecodedClip]:
    """The words of what is spoken."""
    from shoal.evaluation.generated_speech import recognised

    for batch in batches:
        start = clock(loaded.device)
        heard = list(recognised(loaded, batch.clips, task, task.listener))
        share = (clock(loaded.device) - start) / len(batch.clips)
        for speech in heard:
            yield DecodedClip(batch, speech.clip, truncated=speech.truncated, decode_seconds=share, text=speech.text)


def _continuously(
    engine: Engine, loaded: LoadedModel, batches: Sequence[Batch], ids: Collection[str], limit: TokenLimit
) -> Iterator[DecodedClip]:
    """The clips in `ids`, longest first."""
    rows = [
        (prompt, batch, clip)
        for batch in batches
        for prompt, clip in zip(
            prompts_of(batch.prepared, [limit_of(loaded, limit, clip.row) for clip in batch.clips]),
            batch.clips,
            strict=True,
        )
        if clip.id in ids
    ]
    rows.sort(key=lambda row: -len(row[0].embeds))
    for done in engine.run([prompt for prompt, _, _ in rows]):
        _, batch, clip = rows[done.row]
        yield DecodedClip(batch, clip, done.tokens, done.truncated, done.prefill_seconds, done.decode_seconds)


def _decoded_together(loaded: LoadedModel, batch: Batch, limit: TokenLimit) -> Iterator[DecodedClip]:
    limits = [limit_of(loaded, limit, clip.row) for clip in batch.clips]
    together, share = decoded(loaded, batch.prepared, limits), 1 / len(batch.clips)
    for clip, tokens, truncated in zip(batch.clips, together.tokens, together.truncated, strict=True):
        yield DecodedClip(
            batch, clip, tokens, truncated, together.prefill_seconds * share, together.decode_seconds * share
        )


def _outputs(
    loaded: LoadedModel, task: Task, clips: Sequence[DecodedClip], likelihoods: Mapping[str, Likelihoods]
) -> list[Output]:
    texts = written(loaded, [clip.tokens for clip in clips])
    return [
        _output(clip, text if clip.text is None else clip.text, likelihoods[clip.clip.id], task)
        for clip, text in zip(clips, texts, strict=True)
    ]


def _output(answer: DecodedClip, text: str, likelihoods: Likelihoods, task: Task) -> Output:
    row = answer.clip.row
    return Output(
        id=row.id,
        audio_filepath=str(row.audio),
        duration=row.duration,
        offset=row.offset,
        text=task.target(row),
        pred_text=text,
        lang=row.lang,
        speaker=row.speaker,
        tokens=len(answer.tokens),
        truncated=answer.truncated,
        encode_seconds=answer.batch.encode_seconds / len(answer.batch.clips),
        prefill_seconds=answer.prefill_seconds,
        decode_seconds=answer.decode_seconds,
        fields=row.fields,
        data=row.data,
        choices=likelihoods.choices,
        loss=likelihoods.loss,
    )
