"""Batches for Shoal's own SpeechLLM, from stored encoder states, by index arithmetic.

::

    prefix · audio (n projected positions) · suffix · response        padded on the right
                                        └─ predicts response[0] … response[-1], end token

Rows are padded on the right and the decoder is causal, so real positions never see padding and no mask is needed.
Nothing here loops over clips: NumPy makes the index arrays, one copy brings them to the device, one gather fills in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shoal.decoder.prepare import frame_of
from shoal.training.examples import Batch, Batches, DecoderInputs, TrainingExample, ragged
from shoal.training.sampling import Ints

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.models.speech_llm import ProjectorSettings
    from shoal.training.state_files import StateFiles, StateRef, States

_INTS = ("token_ids", "audio_index", "audio_counts", "target_index", "target_tokens", "target_rows", "lengths")
_CTC = ("ctc_tokens", "ctc_lengths")


class CachedBatches(Batches):
    """Batches from stored encoder states.

    Args:
        loaded: says how it is asked, how it answers and what its projector stacks.
        examples: E clips.
        states: of the encoder.
        refs: for each example the states of its variants, all examples the same number.
        ctc_tokens: whether batches hold what a CTC loss is taken over: the response's tokens, where it is what is said.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        examples: Sequence[TrainingExample],
        states: StateFiles,
        refs: Sequence[Sequence[StateRef]],
        *,
        ctc_tokens: bool = False,
    ) -> None:
        self.examples, self._states, self._ctc_tokens = list(examples), states, ctc_tokens
        self._settings: ProjectorSettings = loaded.model.projector.settings
        self._stacks = bool(loaded.model.projector.stacks)
        self._refs = [list(variants) for variants in refs]
        self.variants = len(self._refs[0]) if self._refs else 1
        self._fill_tokens(loaded)
        frames = np.array([[ref.frames for ref in variants] for variants in self._refs], np.int64)
        self._positions = _positions(frames, self._settings)  # (E, variants)
        asked = self._prefix_counts[self._asks] + self._suffix_counts[self._asks]
        self.lengths = self._positions.max(1, initial=0) + asked + self._counts
        self.targets = self._counts + 1
        self.ctc_tokens = np.where(self._spoken, self._counts, 0)

    def _fill_tokens(self, loaded: LoadedModel) -> None:
        """Tokenise prompts and responses, each once."""

        def ids(texts: Sequence[str]) -> list[list[int]]:
            # A tokenizer may refuse what is empty.
            encoded: Any = loaded.tokenizer([text or " " for text in texts], add_special_tokens=False)
            pairs = zip(texts, encoded["input_ids"], strict=True)
            return [list(tokens) if text else [] for text, tokens in pairs]

        instructions = sorted({example.task.instruction for example in self.examples})
        frames = [frame_of(loaded, instruction) for instruction in instructions]
        numbers = {instruction: number for number, instruction in enumerate(instructions)}
        self._asks = np.array([numbers[example.task.instruction] for example in self.examples], np.int64)
        prefixes, suffixes = ids([frame.prefix for frame in frames]), ids([frame.suffix for frame in frames])
        responses = ids([loaded.response_text(example.task.target(example.row)) for example in self.examples])
        self._prefixes, self._prefix_counts, self._prefix_starts = _flat(prefixes)
        self._suffixes, self._suffix_counts, self._suffix_starts = _flat(suffixes)
        self._responses, self._counts, self._starts = _flat(responses)
        self._end = int(loaded.tokenizer.convert_tokens_to_ids(loaded.model.config.end_token))
        self._spoken = np.array([example.task.settings.kind == "asr" for example in self.examples], bool)

    def spoken_tokens(self) -> list[list[int]]:
        """The response's tokens of every example whose response is what is said."""
        ranges = zip(self._starts[self._spoken], self._counts[self._spoken], strict=True)
        return [self._responses[start : start + count].tolist() for start, count in ranges]

    def collate(self, examples: Ints, variants: Ints) -> Batch:
        """See `Batches.collate`: the states, and the index arrays in one tensor."""
        asks, audio = self._asks[examples], self._positions[examples, variants]
        prefix, suffix = self._prefix_counts[asks], self._suffix_counts[asks]
        response = self._counts[examples]
        lengths = prefix + audio + suffix + response
        width = int(lengths.max(initial=1))
        rows = np.arange(len(examples), dtype=np.int64) * width
        tokens = np.zeros(len(examples) * width, np.int64)
        tokens[ragged(rows, prefix)] = self._prefixes[ragged(self._prefix_starts[asks], prefix)]
        after = rows + prefix + audio
        tokens[ragged(after, suffix)] = self._suffixes[ragged(self._suffix_starts[asks], suffix)]
        answers = self._responses[ragged(self._starts[examples], response)]
        tokens[ragged(after + suffix, response)] = answers
        due = np.full(int((response + 1).sum()), self._end, np.int64)
        due[ragged(np.cumsum(response + 1) - response - 1, response)] = answers
        arrays = {
            "token_ids": tokens,
            "audio_index": ragged(rows + prefix, audio),
            "audio_counts": audio,
            "target_index": ragged(after + suffix - 1, response + 1),
            "target_tokens": due,
            "target_rows": np.repeat(np.arange(len(examples)), response + 1),
            "lengths": lengths,
        }
        if self._ctc_tokens:
            arrays["ctc_tokens"] = answers[np.repeat(self._spoken[examples], response)]
            arrays["ctc_lengths"] = self.ctc_tokens[examples]
        refs = [self._refs[index][way] for index, way in zip(examples, variants, strict=True)]
        return {
            "frames": torch.from_numpy(self._frames(refs, audio)),
            "ints": torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()])),
            "sizes": [array.size for array in arrays.values()],
            "frame_counts": [ref.frames for ref in refs],
        }

    def _frames(self, refs: Sequence[StateRef], counts: Ints) -> States:
        """(N, stack · d_enc) frames of all positions, or (frames, d_enc) where the projector does not stack."""
        if not self._stacks:
            return self._states.read(refs)
        size = self._settings.stack
        whole = [replace(ref, frames=ref.frames // size * size) for ref in refs if ref.frames >= size]
        read = self._states.read(whole).reshape(-1, size * self._states.size)
        if len(whole) == len(refs):
            return read
        # A clip shorter than one stack is padded with zero frames to one position.
        starts, frames = np.cumsum(counts) - counts, np.zeros((int(counts.sum()), read.shape[1]), read.dtype)
        short = np.array([ref.frames < size for ref in refs])
        frames[ragged(starts[~short], counts[~short])] = read
        for start, ref in zip(starts[short], [ref for ref in refs if ref.frames < size], strict=True):
            frames[start, : ref.frames * self._states.size] = self._states.read([ref]).ravel()
        return frames

    def inputs(self, loaded: LoadedModel, batch: Batch) -> DecoderInputs:
        """See `Batches.inputs`."""
        ints: dict[str, Tensor] = self.ints(batch)
        clips = len(ints["audio_counts"])
        vectors = self.vectors(loaded, batch)
        table: Any = loaded.model.get_input_embeddings()
        embeds = table(ints["token_ids"])
        embeds = embeds.index_copy(0, ints["audio_index"], vectors.to(embeds.dtype))
        embeds = embeds.view(clips, -1, embeds.shape[-1])
        real = torch.arange(embeds.shape[1], device=embeds.device) < ints["lengths"][:, None]
        return DecoderInputs(
            {"inputs_embeds": embeds},
            real,
            ints["target_index"],
            ints["target_tokens"],
            ints["target_rows"],
            vectors,
            ints["audio_counts"],
        )

    def vectors(self, loaded: LoadedModel, batch: Batch) -> Tensor:
        """(N, d): what the projector makes of the batch's states, all clips one after the other."""
        projector: Any = loaded.model.projector
        weight = projector.output.weight
        frames = batch["frames"].to(weight.device, weight.dtype)
        if self._stacks:
            vectors: Tensor = projector.finish(projector.transform(frames))
            return vectors
        return torch.cat(projector(list(frames.split(batch["frame_counts"]))))

    def ints(self, batch: Batch) -> dict[str, Tensor]:
        """The index arrays of a batch, by name."""
        names = _INTS + (_CTC if self._ctc_tokens else ())
        return dict(zip(names, batch["ints"].split(batch["sizes"]), strict=True))


def _positions(frames: Ints, settings: ProjectorSettings) -> Ints:
    """`ProjectorSettings.positions` of many."""
    positions: Ints = (np.maximum(frames, settings.field) - settings.field) // settings.stack + 1
    return positions


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints, Ints]:
    """All numbers one after the other, how many each list has, and where it begins."""
    counts = np.array([len(numbers) for numbers in lists], np.int64)
    flat = np.array([number for numbers in lists for number in numbers], np.int64)
    return flat, counts, np.cumsum(counts) - counts
