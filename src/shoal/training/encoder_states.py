"""The states of a frozen speech encoder, computed once and kept on disk, so that training never runs the encoder.

A state has a key made of everything it depends on: the encoder, its feature extractor, the encoded audio, the part
of it that is used, and how it was altered. Another manifest that names the same audio finds it again; another
encoder never does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shoal.data import Clip, Dataset, Row
from shoal.data.batches import MAX_BATCH_SECONDS, batches
from shoal.errors import MeasureError, UsageError
from shoal.models.contexts import evaluating
from shoal.models.speech_llm import WHISPER_SAMPLES_PER_FRAME, SpeechLLM, SpeechLLMProcessor
from shoal.progress import Progress, report_progress
from shoal.training.augment import PLAIN, Variant, at_speed, masked
from shoal.training.state_files import StateFiles, StateRef, States
from shoal.training.state_keys import Sources, encoder_key, seed, state_key

Refs = dict[tuple[str, Variant], StateRef]

_DTYPES: dict[torch.dtype, npt.DTypeLike] = {torch.float16: np.float16, torch.float32: np.float32}
_SAMPLES_PER_MEL_FRAME = WHISPER_SAMPLES_PER_FRAME // 2


class EncoderStates:
    """Encoder states on disk, computed where they are missing.

    Args:
        model: its encoder must not change while the store is in use.
        processor: turns samples into the encoder's inputs.
        folder: states of all encoders lie below it, each in its own folder; it need not exist yet.
        dtype: what states are kept in, float16 or float32.
        batch_size: most clips that are encoded at once.

    Raises:
        UsageError: another dtype.
    """

    def __init__(
        self,
        model: SpeechLLM,
        processor: SpeechLLMProcessor,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float16,
        batch_size: int = 8,
    ) -> None:
        if dtype not in _DTYPES:
            raise UsageError(f"encoder states cannot be kept in {dtype}", fix="use float16 or float32")
        self._model, self._processor, self._batch_size = model, processor, batch_size
        self._encoder_key = encoder_key(model, processor, dtype)
        self._dtype, self._sources = dtype, Sources()
        self.folder = folder / self._encoder_key[:16]
        self.files = StateFiles(self.folder, int(model.config.encoder_config.hidden_size), _DTYPES[dtype])

    def ensure(
        self,
        data: Dataset,
        rows: Sequence[Row],
        variants: Sequence[Variant] = (PLAIN,),
        *,
        rank: int = 0,
        world: int = 1,
        progress: Progress | None = None,
    ) -> Refs:
        """Compute the states that are missing, and say where those of `rows` lie.

        With several ranks, each computes `rows[rank::world]`; once all are done, a second call finds the states of
        the others. Whatever was finished before a kill is not computed again.

        Args:
            data: decodes the rows; one whose audio cannot be used is left out of it and of the result.
            rows: utterances of `data`.
            variants: each row in each of them.
            rank: this process's number, 0 … world - 1.
            world: how many processes share the work.
            progress: told ("encode", states done, states missing).

        Returns:
            Where each (row id, variant) lies, as far as it is there.

        Raises:
            UsageError: masks for an encoder that reads the waveform, or a rank out of range.
            ManifestError: more rows are bad than `data` allows.
            MeasureError: a state is not finite.
            InputError: the folder cannot be written, or its disk is full.
        """
        self._check(variants, rank, world)
        sources = {row.id: source for row in rows if (source := self._sources.of(row)) is not None}
        mine = rows[rank::world]
        _leave_out(data, [row for row in mine if row.id not in sources])
        mine = [row for row in mine if row.id in sources]
        if missing := self._missing(mine, sources, variants):
            self._compute(data, missing, sources, progress)
            _leave_out(data, [row for row in mine if None in [self._find(sources[row.id], way) for way in variants]])
        return {
            (row.id, variant): ref
            for row in rows
            if row.id in sources
            for variant in variants
            if (ref := self._find(sources[row.id], variant)) is not None
        }

    def _check(self, variants: Sequence[Variant], rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise UsageError(f"there is no rank {rank} of {world}", fix="count ranks from 0")
        if self._processor.frame_window is None and any(variant.masks for variant in variants):
            kind = self._model.config.encoder_config.model_type
            raise UsageError(
                f"the encoder ({kind}) reads the waveform, so there is no log-mel to mask",
                fix="leave out the masks (SpecAugment); speeds work with every encoder",
            )

    def _missing(
        self, rows: Sequence[Row], sources: dict[str, str], variants: Sequence[Variant]
    ) -> dict[Variant, list[Row]]:
        """Rows to encode; of rows with the same audio, one."""
        missing: dict[Variant, list[Row]] = {}
        for variant in dict.fromkeys(variants):
            keyed = {self._key(sources[row.id], variant): row for row in rows}
            if absent := [row for key, row in keyed.items() if self.files.get(key) is None]:
                missing[variant] = absent
        return missing

    def _compute(
        self, data: Dataset, missing: dict[Variant, list[Row]], sources: dict[str, str], progress: Progress | None
    ) -> None:
        done, total = 0, sum(len(rows) for rows in missing.values())
        if total:
            report_progress(progress, "encode", 0, total)
        for variant, rows in missing.items():
            # Limits are on what is encoded, which is 1 / speed as long as the rows.
            seconds = MAX_BATCH_SECONDS * variant.speed
            for batch in batches(rows, max_clips=self._batch_size, max_seconds=seconds):
                # Another process may have come to these rows in the meantime.
                absent = [row for row in batch if self._find(sources[row.id], variant) is None]
                if clips := list(data.clips(absent)):
                    heard = [sources[clip.id] for clip in clips]
                    for source, state in zip(heard, self._encode(clips, heard, variant), strict=True):
                        self.files.write(self._key(source, variant), state)
                done += len(batch)
                report_progress(progress, "encode", done, total)

    def _encode(self, clips: Sequence[Clip], sources: Sequence[str], variant: Variant) -> list[States]:
        """States (frames, d_enc) of each clip, on the CPU."""
        inputs = self._processor.audio_inputs([at_speed(clip.samples, variant.speed) for clip in clips])
        if variant.masks:
            inputs["input_features"] = _masked(inputs, [seed(source, variant.masks) for source in sources])
        encoder = self._model.encoder
        moved = {
            name: value.to(encoder.device, encoder.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        with evaluating(encoder), torch.inference_mode():
            states = self._model.encode(**moved)
            kept = torch.cat(states).to(self._dtype).cpu().numpy()
        parts = np.split(kept, np.cumsum([len(state) for state in states])[:-1])
        for clip, part in zip(clips, parts, strict=True):
            self._check_finite(clip, part)
        return parts

    def _check_finite(self, clip: Clip, states: States) -> None:
        if not np.isfinite(states).all():
            name = str(self._dtype).removeprefix("torch.")
            raise MeasureError(
                f"{clip.row.place}: the encoder's states of clip {clip.id} ({clip.row.audio_name}) "
                f"are not finite in {name}"
            )

    def _find(self, source: str, variant: Variant) -> StateRef | None:
        return self.files.get(self._key(source, variant))

    def _key(self, source: str, variant: Variant) -> str:
        return state_key(self._encoder_key, source, variant)


def _leave_out(data: Dataset, rows: Sequence[Row]) -> None:
    """Decode rows that cannot be used, so that `data` records why."""
    for _ in data.clips(rows):
        pass


def _masked(inputs: dict[str, Tensor], seeds: Sequence[int]) -> Tensor:
    """The log-mel (clips, windows, mels, mel frames) with each clip's masks."""
    valid = [math.ceil(count / _SAMPLES_PER_MEL_FRAME) for count in inputs["audio_samples"].tolist()]
    clips = zip(inputs["input_features"], valid, seeds, strict=True)
    return torch.stack([masked(features, frames, seed) for features, frames, seed in clips])
