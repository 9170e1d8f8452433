"""What a system answers to the clips of a window: here the ways of answering that a task asks for meet.

`decode` is carried out by `shoal.evaluation.generate`; `choose` and `loss` by `shoal.evaluation.likelihood`, on the
same embedded batches.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.evaluation.engine import prompts_of
from shoal.evaluation.generate import Decoded, clock, decoded, written
from shoal.evaluation.output_file import Output
from shoal.evaluation.settings import limit_of
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


def answers(
    system: System,
    window: Window,
    wanted: Collection[str],
    task: Task,
    limit: TokenLimit,
    *,
    engines: EngineCache,
    group: int,
) -> Iterator[list[Output]]:
    """One output for every clip of `window` whose id is in `wanted`, in small groups, as they get ready.

    Args:
        system: answers; its layers are removed while this runs.
        window: embedded clips.
        wanted: ids; others may be in the window for the sake of other systems.
        task: says by its `answered_by` what is done.
        limit: how many tokens a clip may get.
        engines: decode.
        group: most outputs in a group.
    """
    batches = [batch for batch in window.batches if any(clip.id in wanted for clip in batch.clips)]
    with _without(system):
        judged: dict[str, Likelihoods] = {}
        said = _said(system, batches, wanted, task, limit, engines)
        needed = (each for each in said if each.clip.id in wanted)
        for several in grouped(needed, most=group, seconds=STORE_SECONDS):
            # Here and not before, so that what is judged is stored as it comes.
            for each in several:
                if each.clip.id not in judged:
                    found = _judged(system.loaded, each.batch, task)
                    judged |= {clip.id: one for clip, one in zip(each.batch.clips, found, strict=True)}
            yield _outputs(system.loaded, task, several, judged)


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


def _judged(loaded: LoadedModel, batch: Batch, task: Task) -> list[Likelihoods]:
    """The likelihoods that the task asks for, one for each clip of `batch`."""
    if not {"choose", "loss"} & set(task.answered_by):
        return [Likelihoods() for _ in batch.clips]
    from shoal.evaluation.likelihood import likelihoods

    return likelihoods(loaded, batch, task)


def _said(
    system: System,
    batches: Sequence[Batch],
    wanted: Collection[str],
    task: Task,
    limit: TokenLimit,
    engines: EngineCache,
) -> Iterator[DecodedClip]:
    """What is said to the clips in `wanted`, and perhaps to others, in the order in which they get ready."""
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
            yield from _shares(batch, _decode(loaded, batch, limit))
    else:
        yield from _continuously(engine, loaded, batches, wanted, limit)


def _heard(loaded: LoadedModel, batches: Sequence[Batch], task: Tts) -> Iterator[DecodedClip]:
    """The words of what is spoken."""
    from shoal.evaluation.generated_speech import recognised

    for batch in batches:
        start = clock(loaded.device)
        found = list(recognised(loaded, batch.clips, task, task.listener))
        share = (clock(loaded.device) - start) / len(batch.clips)
        for each in found:
            yield DecodedClip(
                batch, each.clip, truncated=each.truncated, decode_seconds=share, text=each.text
            )


def _continuously(
    engine: Engine, loaded: LoadedModel, batches: Sequence[Batch], wanted: Collection[str], limit: TokenLimit
) -> Iterator[DecodedClip]:
    """The clips in `wanted`, longest first."""
    rows = [
        (prompt, batch, clip)
        for batch in batches
        for prompt, clip in zip(
            prompts_of(batch.prepared, [limit_of(loaded, limit, clip.row) for clip in batch.clips]),
            batch.clips,
            strict=True,
        )
        if clip.id in wanted
    ]
    rows.sort(key=lambda row: -len(row[0].embeds))
    for done in engine.run([prompt for prompt, _, _ in rows]):
        _, batch, clip = rows[done.row]
        yield DecodedClip(batch, clip, done.tokens, done.truncated, done.prefill_seconds, done.decode_seconds)


def _shares(batch: Batch, found: Decoded) -> Iterator[DecodedClip]:
    share = 1 / len(batch.clips)
    for clip, tokens, truncated in zip(batch.clips, found.tokens, found.truncated, strict=True):
        yield DecodedClip(
            batch, clip, tokens, truncated, found.prefill_seconds * share, found.decode_seconds * share
        )


def _decode(loaded: LoadedModel, batch: Batch, limit: TokenLimit) -> Decoded:
    limits = [limit_of(loaded, limit, clip.row) for clip in batch.clips]
    return decoded(loaded, batch.prepared, limits)


def _outputs(
    loaded: LoadedModel, task: Task, group: Sequence[DecodedClip], judged: dict[str, Likelihoods]
) -> list[Output]:
    texts = written(loaded, [said.tokens for said in group])
    return [
        _output(said, text if said.text is None else said.text, judged[said.clip.id], task)
        for said, text in zip(group, texts, strict=True)
    ]


def _output(said: DecodedClip, text: str, judged: Likelihoods, task: Task) -> Output:
    row = said.clip.row
    return Output(
        id=row.id,
        audio_filepath=str(row.audio),
        duration=row.duration,
        offset=row.offset,
        text=task.target(row),
        pred_text=text,
        lang=row.lang,
        speaker=row.speaker,
        tokens=len(said.tokens),
        truncated=said.truncated,
        encode_seconds=said.batch.encode_seconds / len(said.batch.clips),
        prefill_seconds=said.prefill_seconds,
        decode_seconds=said.decode_seconds,
        fields=row.fields,
        data=row.data,
        choices=judged.choices,
        loss=judged.loss,
    )
