"""All clips through all systems.

The encoder is the same for every plan, so a batch is embedded once and then decoded by one system after the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.data import MAX_BATCH_SECONDS, batches
from shoal.evaluate.generate import Decoded, clock, generated, greedy
from shoal.evaluate.outputs import Output
from shoal.evaluate.settings import TokenLimit
from shoal.prune.in_memory import pruned

if TYPE_CHECKING:
    from shoal.data import Clip, Dataset, Row
    from shoal.evaluate.systems import System
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import Part
    from shoal.tasks import Task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Clips, embedded."""

    clips: list[Clip]
    prepared: PreparedBatch
    encode_seconds: float


class Transcriber:
    """Decodes what the systems have no output for yet.

    Args:
        data: the clips.
        task: what is asked.
        limit: how many tokens a clip may get.
        batch_size: clips a batch at most.

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """

    def __init__(self, data: Dataset, task: Task, limit: TokenLimit, batch_size: int) -> None:
        self._data, self._task, self._limit, self._batch_size = data, task, limit, batch_size
        self._references = {row.id: task.target(row) for row in data.rows}

    def run(self, systems: Sequence[System], progress: Progress | None = None) -> None:
        """Transcribe, batch after batch; every batch is stored as soon as it is decoded."""
        pending = [self._pending(system) for system in systems]
        total = len(systems) * len(self._data.rows)
        done = total - sum(map(len, pending))
        for group, rows in _alike(systems, pending):
            for part in batches(rows, max_clips=self._batch_size, max_seconds=MAX_BATCH_SECONDS):
                for _ in self._transcribe(group, part):
                    done += len(part)
                    if progress is not None:
                        progress("transcribe", done, total)

    def _pending(self, system: System) -> list[Row]:
        return [row for row in self._data.rows if not system.outputs.has(row, self._references[row.id])]

    def _transcribe(self, systems: Sequence[System], rows: Sequence[Row]) -> Iterator[System]:
        """Yields each system when its outputs for `rows` are stored; equal systems are decoded once."""
        batch = self._embed(systems[0].loaded, rows)
        known: dict[tuple[Part, tuple[int, ...]], list[Output]] = {}
        for system in systems:
            without = (system.part, tuple(system.removed))
            if batch is not None and without not in known:
                known[without] = self._outputs(batch, _decode(system, batch, self._limit), system)
            system.outputs.append(known.get(without, []))
            yield system

    def _embed(self, loaded: LoadedModel, rows: Sequence[Row]) -> _Batch | None:
        """None if no row's audio can be used."""
        clips = list(self._data.clips(rows))
        if not clips:
            return None
        start = clock(loaded.device)
        prepared = loaded.prepare(clips, self._task, input="speech", response=False, padding_side="left")
        return _Batch(clips, prepared, clock(loaded.device) - start)

    def _outputs(self, batch: _Batch, decoded: Decoded, system: System) -> list[Output]:
        loaded = system.loaded
        written = loaded.tokenizer.batch_decode(decoded.tokens, skip_special_tokens=True)
        texts = [loaded.family.answer(loaded.processor, text) for text in written]
        share = 1 / len(batch.clips)
        return [
            Output(
                id=clip.id,
                audio_filepath=str(clip.row.audio),
                duration=clip.row.duration,
                offset=clip.row.offset,
                text=self._references[clip.id],
                pred_text=text,
                lang=clip.row.lang,
                speaker=clip.row.speaker,
                tokens=len(tokens),
                truncated=truncated,
                encode_seconds=batch.encode_seconds * share,
                prefill_seconds=decoded.prefill_seconds * share,
                decode_seconds=decoded.decode_seconds * share,
                fields=clip.row.fields,
            )
            for clip, text, tokens, truncated in zip(
                batch.clips, texts, decoded.tokens, decoded.truncated, strict=True
            )
        ]


def _decode(system: System, batch: _Batch, limit: TokenLimit) -> Decoded:
    loaded, layers = system.loaded, system.removed
    limits = [_limit(loaded, limit, clip.row) for clip in batch.clips]
    with pruned(loaded.model, layers, part=system.part, family=loaded.family) if layers else nullcontext():
        if not loaded.engine:
            return generated(
                loaded.family.answering(loaded.model),
                batch.prepared,
                eos_ids=loaded.eos_ids,
                max_new_tokens=limits,
                options=loaded.family.generate_options,
            )
        return greedy(loaded.lm, batch.prepared, eos_ids=loaded.eos_ids, max_new_tokens=limits)


def _limit(loaded: LoadedModel, limit: TokenLimit, row: Row) -> int:
    """The limit for one clip; a model may need more than the automatic one, but not more than the user allows."""
    given = limit.of(row)
    if limit.fixed is not None:
        return given
    return loaded.family.token_limit(loaded.processor, row.duration, given)


def _alike(
    systems: Sequence[System], pending: Sequence[list[Row]]
) -> Iterator[tuple[list[System], list[Row]]]:
    """Systems of one model that lack the same rows, so that they can share the encoder's work."""
    groups: dict[tuple[int, tuple[str, ...]], tuple[list[System], list[Row]]] = {}
    for system, rows in zip(systems, pending, strict=True):
        key = (id(system.loaded), tuple(row.id for row in rows))
        groups.setdefault(key, ([], rows))[0].append(system)
    yield from groups.values()
