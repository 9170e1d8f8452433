"""Batches for any model that Shoal can load, made by the model's own processor and encoder in every step.

Slower than stored states, and right for every class: what the decoder is called with is what the model's own forward
pass calls it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shoal.data import Clip
from shoal.errors import ModelError, TrainingError
from shoal.measure.collector import copied, decoder_arguments
from shoal.measure.feeding import SILENCE
from shoal.measure.targets import targets_of
from shoal.models.native import decoder_call
from shoal.training.feed import Batch, Example, Feed, Inputs, Ints

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind

POSITIONS_PER_SECOND = 12.5
"""About what audio LLMs make of a second; it only decides which clips share a batch."""


class NativeFeed(Feed):
    """Batches made by the model itself.

    Args:
        loaded: tokenises the responses.
        examples: E clips.
        input: what stands in the audio's place.
        through_projector: whether the graph must reach back to the projector.

    Raises:
        ModelError: the projector of this class cannot be reached.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        examples: Sequence[Example],
        *,
        input: InputKind = "speech",
        through_projector: bool = False,
    ) -> None:
        self.examples, self._input, self._through = list(examples), input, through_projector
        if through_projector and loaded.family.projector(loaded.model) is None:
            raise ModelError(
                "it has no projector that Shoal knows",
                where=type(loaded.model).__name__,
                fix="heal another target",
            )
        texts = [loaded.response_text(each.task.target(each.row)) for each in self.examples]
        ids: Any = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        self.targets = np.array([len(each) + 1 for each in ids], np.int64)
        self.spoken = np.zeros_like(self.targets)
        heard = [round(each.row.duration * POSITIONS_PER_SECOND) for each in self.examples]
        self.lengths = self.targets + np.array(heard, np.int64)

    def collate(self, examples: Ints, variants: Ints) -> Batch:
        """See `Feed.collate`: the decoded clips; the rest happens where the model is."""
        del variants
        chosen = [self.examples[each] for each in examples.tolist()]
        return {"clips": [self._clip(each) for each in chosen], "tasks": [each.task for each in chosen]}

    def _clip(self, example: Example) -> Clip:
        if self._input == "text":
            return Clip(example.row, SILENCE)
        for clip in example.data.clips([example.row]):
            return clip
        raise TrainingError(f"{example.row.place}: the audio of a clip in use cannot be decoded any more")

    def inputs(self, loaded: LoadedModel, batch: Batch) -> Inputs:
        """See `Feed.inputs`.

        Raises:
            ModelError: the projector cannot be reached, since clips of this class are encoded one by one.
        """
        prepared = self._prepared(loaded, batch)
        with torch.inference_mode(False):
            targets = targets_of(prepared, "text", loaded.eos_ids)
            call = self._call(loaded, prepared)
            kinds = prepared.kinds.clone()
            index = targets.rows * kinds.shape[1] + targets.positions
            return Inputs(call, kinds != 0, index, targets.tokens, targets.rows)

    def _prepared(self, loaded: LoadedModel, batch: Batch) -> PreparedBatch:
        (task,) = set(batch["tasks"])
        return loaded.prepare(batch["clips"], task, input=self._input, response=True, padding_side="right")

    def _call(self, loaded: LoadedModel, prepared: PreparedBatch) -> dict[str, Any]:
        if not self._through or self._input == "text":
            return decoder_arguments(loaded.decoder, prepared)
        if not prepared.inputs:
            raise ModelError(
                "its clips are encoded one by one, so that its projector cannot be trained here",
                where=type(loaded.model).__name__,
                fix="heal the decoder alone (--target receiver or decoder)",
            )
        inputs: dict[str, Tensor] = copied(dict(prepared.inputs))
        return decoder_call(loaded.model, loaded.family, inputs)
