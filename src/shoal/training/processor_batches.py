"""Batches for any model that Shoal can load, made by the model's own processor and encoder in every step.

Slower than stored states, and right for every class: what the decoder is called with is what the model's own forward
pass calls it with. Where something in front of the decoder is trained (the projector, or the input embeddings that a
head shares), that forward pass is made once more with a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from shoal.data import Clip
from shoal.decoder.batches import SILENCE
from shoal.decoder.loss_targets import targets_of
from shoal.decoder.prepare import prepare
from shoal.decoder.states import copy_tensors, decoder_arguments
from shoal.errors import ModelError, TrainingError
from shoal.models.batch import stacked
from shoal.models.families.audio_llm import AudioLLM
from shoal.training.examples import Batch, Batches, DecoderInputs, TrainingExample
from shoal.training.sampling import Ints

if TYPE_CHECKING:
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.schema import InputKind

POSITIONS_PER_SECOND = 12.5
"""About what audio LLMs make of a second; it only decides which clips share a batch."""


class ProcessorBatches(Batches):
    """Batches made by the model itself.

    Args:
        loaded: tokenises the responses.
        examples: E clips.
        input: what stands in the audio's place.
        through_projector: whether the graph must reach back to the projector.

    Raises:
        ModelError: the model cannot be trained on the words of clips, its projector cannot be reached, or it does not
            know the language of a clip.
        AudioError: a clip is longer than the processor's window.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        examples: Sequence[TrainingExample],
        *,
        input: InputKind = "speech",
        through_projector: bool = False,
    ) -> None:
        self.examples, self._input = list(examples), input
        check_learns(loaded)
        if through_projector or _trains_projector(loaded):
            check_projector(loaded, input)
        for example in self.examples if input == "speech" else ():
            loaded.check_length(example.row.duration, example.row)
        for task, lang in {(example.task, example.row.lang) for example in self.examples}:
            loaded.languages_told(task, [lang])
        self.targets = np.array([_target_tokens(loaded, example) for example in self.examples], np.int64)
        self.ctc_tokens = np.zeros_like(self.targets)
        heard = [round(example.row.duration * POSITIONS_PER_SECOND) for example in self.examples]
        self.lengths = self.targets + np.array(heard, np.int64)

    def collate(self, examples: Ints, variants: Ints) -> Batch:
        """See `Batches.collate`: the decoded clips; the rest happens where the model is."""
        del variants
        chosen = [self.examples[index] for index in examples.tolist()]
        clips, tasks = [self._clip(example) for example in chosen], [example.task for example in chosen]
        return {"clips": clips, "tasks": tasks}

    def _clip(self, example: TrainingExample) -> Clip:
        if self._input == "text":
            return Clip(example.row, SILENCE)
        for clip in example.data.clips([example.row]):
            return clip
        raise TrainingError(f"{example.row.place}: the audio of a clip in use cannot be decoded any more")

    def inputs(self, loaded: LoadedModel, batch: Batch) -> DecoderInputs:
        """See `Batches.inputs`.

        Raises:
            ModelError: the model cannot make them.
        """
        prepared, singles = self._prepared(loaded, batch)
        with torch.inference_mode(False):
            targets = targets_of(prepared, "response", loaded.eos_ids)
            call = _graph_call(loaded, prepared, singles) or decoder_arguments(loaded.decoder, prepared)
            kinds = prepared.kinds.clone()
            index = targets.rows * kinds.shape[1] + targets.positions
            return DecoderInputs(call, kinds != 0, index, targets.tokens, targets.rows)

    def _prepared(self, loaded: LoadedModel, batch: Batch) -> tuple[PreparedBatch, list[PreparedBatch]]:
        """The batch, and where its clips are encoded one by one for a graph, what it was put together of."""
        (task,) = set(batch["tasks"])
        alone = getattr(loaded.family, "encodes_one_by_one", False) and _graph_wanted(loaded)
        groups = [[clip] for clip in batch["clips"]] if alone else [batch["clips"]]
        singles = [
            prepare(loaded, clips, task, input=self._input, response=True, padding_side="right") for clips in groups
        ]
        return (stacked(singles, "right"), singles) if len(singles) > 1 else (singles[0], [])


def check_learns(loaded: LoadedModel) -> None:
    """Make sure that a model can be trained on the words of clips.

    Raises:
        ModelError: it cannot be fed, writes no words, or no words that are given to it.
    """
    loaded.check_fed()
    family, where = loaded.family, type(loaded.model).__name__
    if not family.writes:
        raise ModelError(
            "it answers in speech only, so it has no loss over words to be trained by",
            where=where,
            fix="use it as it was pruned",
        )
    if isinstance(family, AudioLLM) and family.no_training_reason:
        raise ModelError(
            f"it cannot be trained on transcripts: {family.no_training_reason}",
            where=where,
            fix="use it as it was pruned",
        )


def check_projector(loaded: LoadedModel, input: InputKind) -> None:
    """Make sure that the projector of a model runs, and that a graph can reach it.

    Raises:
        ModelError: it does not, or it cannot.
    """
    where = type(loaded.model).__name__
    if loaded.family.projector(loaded.model) is None or not isinstance(loaded.family, AudioLLM):
        raise ModelError("it has no projector that Shoal knows", where=where, fix="heal another target")
    if input == "text":
        raise ModelError(
            "its projector does not run on the text input, so it cannot be trained by it",
            where=where,
            fix="use --input speech, or heal the decoder alone (--target receiver or decoder)",
        )


def _target_tokens(loaded: LoadedModel, example: TrainingExample) -> int:
    """How many tokens are due, with the end."""
    text, family = loaded.response_text(example.task.target(example.row)), loaded.family
    if isinstance(family, AudioLLM) and not example.task.plain_text:
        text = family.response(text)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return len(ids) + (0 if example.task.plain_text else 1)


def _graph_wanted(loaded: LoadedModel) -> bool:
    """Whether something in front of the decoder's layers is trained."""
    decoder: Any = loaded.decoder
    return _trains_projector(loaded) or _trained(decoder.get_input_embeddings())


def _trains_projector(loaded: LoadedModel) -> bool:
    return _trained(loaded.family.projector(loaded.model))


def _trained(module: nn.Module | None) -> bool:
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())


def _graph_call(
    loaded: LoadedModel, prepared: PreparedBatch, singles: Sequence[PreparedBatch]
) -> dict[str, Any] | None:
    """The decoder's arguments with a graph to what is trained in front of it; None where there is no need for one."""
    if not _graph_wanted(loaded):
        return None
    if not isinstance(loaded.family, AudioLLM):
        return _embedded_again(loaded, prepared)
    if singles:
        rows = [_own_call(loaded, single)["inputs_embeds"][0] for single in singles]
        embeds = pad_sequence(rows, batch_first=True)
        return {"inputs_embeds": embeds, "attention_mask": (prepared.kinds != 0).long()}
    if "inputs_embeds" not in prepared.call and not _trains_projector(loaded):
        return None  # the decoder embeds the tokens itself
    return _own_call(loaded, prepared)


def _own_call(loaded: LoadedModel, prepared: PreparedBatch) -> dict[str, Any]:
    """How the model's own forward pass calls its decoder, with a graph."""
    assert isinstance(loaded.family, AudioLLM)
    call: dict[str, Any] = loaded.family.call(loaded.model, copy_tensors(dict(prepared.inputs)))
    return call


def _embedded_again(loaded: LoadedModel, prepared: PreparedBatch) -> dict[str, Any]:
    """For a model that is called with embeddings and no more: those of the tokens with a graph to their table."""
    call = decoder_arguments(loaded.decoder, prepared)
    if "inputs_embeds" in call:
        tokens = prepared.token_ids.clone()
        table: Any = loaded.model.get_input_embeddings()
        fresh: Tensor = table(tokens.clamp(min=0))
        call["inputs_embeds"] = torch.where((tokens >= 0)[..., None], fresh, call["inputs_embeds"])
    return call
