"""What the likelihood of given texts says: which of the allowed answers is the likeliest, what the right one loses.

The log-likelihood of an answer is that of its tokens and of the end after them, teacher-forced, in nats; of a text that
stands alone, of its tokens. Choosing by it is what lm-evaluation-harness calls multiple choice (Gao et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from shoal.data.clip import Clip, Row
from shoal.decoder.logits import check_head, losses_at
from shoal.decoder.loss_targets import targets_of
from shoal.decoder.prepare import prepare
from shoal.decoder.states import decoder_arguments, last_states
from shoal.errors import MeasureError
from shoal.evaluation.shared_prompt import continues, log_likelihoods
from shoal.evaluation.window import Likelihoods
from shoal.models.families.audio_llm import AudioLLM
from shoal.tasks import Task

if TYPE_CHECKING:
    from shoal.evaluation.window import Batch
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel

Loss = tuple[float, int]
_CHECKED: WeakSet[nn.Module] = WeakSet()
"""Models whose head is known to give the logits of their own forward pass."""


class TaskWithAnswers(Task):
    """`task` with other right answers.

    Args:
        task: what is asked.
        answers: row id → what counts as its right answer.
    """

    def __init__(self, task: Task, answers: Mapping[str, str]) -> None:
        super().__init__(task.settings)
        self._task, self._answers = task, answers
        self.plain_text = task.plain_text  # type: ignore[misc]

    @property
    def instruction(self) -> str:
        """That of the task."""
        return self._task.instruction

    def target(self, row: Row) -> str:
        """The answer that was given for the row."""
        return self._answers[row.id]


@torch.inference_mode()
def likelihoods(loaded: LoadedModel, batch: Batch, task: Task) -> list[Likelihoods]:
    """The likelihoods that `task` asks for, for every clip of a batch; layers may have been removed from the model.

    Args:
        loaded: the model.
        batch: clips, and their prompts padded on the left.
        task: asks by `choose`, `loss` or both.

    Raises:
        MeasureError: a likelihood is not finite.
        ModelError: the loss of this class is not known.
    """
    allowed: list[dict[str, float] | None] = [None] * len(batch.clips)
    losses: list[Loss | None] = [None] * len(batch.clips)
    if "choose" in task.answered_by:
        allowed = list(_choices(loaded, batch, task))
    if "loss" in task.answered_by:
        losses = list(
            _spoken(loaded, batch.clips, task) if task.answers_in_speech else _losses(loaded, batch.clips, task)
        )
    for clip, choices, loss in zip(batch.clips, allowed, losses, strict=True):
        _check_finite(clip, [*(choices or {}).values(), *(loss or ())[:1]])
    return [Likelihoods(*of_clip) for of_clip in zip(allowed, losses, strict=True)]


def _check_finite(clip: Clip, values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise MeasureError(f"clip {clip.id}: the likelihood of an answer is not finite; try float32")


def _choices(loaded: LoadedModel, batch: Batch, task: Task) -> list[dict[str, float] | None]:
    """Log-likelihood of every allowed answer to each clip; None where any text may be an answer."""
    allowed = [task.choices(clip.row) for clip in batch.clips]
    if not any(allowed):
        return [None] * len(allowed)
    if continues(loaded, task):
        _check_once(loaded, batch.prepared)
        values = log_likelihoods(loaded, batch.prepared, allowed)
    else:
        values = _one_after_the_other(loaded, batch.clips, task, allowed)
    return [
        dict(zip(answers, of_clip, strict=True)) if answers else None
        for answers, of_clip in zip(allowed, values, strict=True)
    ]


def _one_after_the_other(
    loaded: LoadedModel, clips: Sequence[Clip], task: Task, allowed: Sequence[Sequence[str]]
) -> list[list[float]]:
    """The same for a model that is only known to run over a whole prompt with its answer."""
    values: list[list[float]] = [[] for _ in clips]
    for number in range(max(map(len, allowed))):
        rows = [row for row, answers in enumerate(allowed) if number < len(answers)]
        answered = TaskWithAnswers(task, {clips[row].id: allowed[row][number] for row in rows})
        losses = _losses(loaded, [clips[row] for row in rows], answered)
        for row, (nats, _) in zip(rows, losses, strict=True):
            values[row].append(-nats)
    return values


def _losses(loaded: LoadedModel, clips: Sequence[Clip], task: Task) -> list[Loss]:
    """Cross-entropy of the right answer to each clip, and its tokens."""
    batch = prepare(loaded, clips, task, input=task.input, response=True, padding_side="right")
    _check_once(loaded, batch)
    return response_losses(loaded, batch)


def response_losses(loaded: LoadedModel, batch: PreparedBatch) -> list[Loss]:
    """Cross-entropy (nats) and number of the tokens of each response, with its end where one is due.

    Args:
        loaded: the model, with or without all its layers.
        batch: B clips with responses, made by the model as it is.

    Raises:
        MeasureError: a response has no token that is predicted.
        ModelError: the model has no head for words.
    """
    targets = targets_of(batch, "response", loaded.eos_ids)
    states = last_states(loaded.decoder(**decoder_arguments(loaded.decoder, batch), use_cache=False))
    losses = losses_at(loaded, states[targets.rows, targets.positions], targets.tokens)
    return summed(losses, targets.rows, len(batch.ids))


def summed(losses: Tensor, rows: Tensor, count: int) -> list[Loss]:
    """Sums of `losses` (N,) and how many they are, for each of `count` clips that they belong to by `rows` (N,)."""
    owners = rows.cpu().numpy()
    nats = np.bincount(owners, losses.double().cpu().numpy(), minlength=count)
    return list(zip(nats.tolist(), np.bincount(owners, minlength=count).tolist(), strict=True))


def _spoken(loaded: LoadedModel, clips: Sequence[Clip], task: Task) -> list[Loss]:
    """The same of the speech tokens of each clip, given its words."""
    assert isinstance(loaded.family, AudioLLM)
    batch = loaded.family.spoken_batch(loaded.model, loaded.processor, clips, task)
    if batch is None:
        batch = prepare(loaded, clips, task, input="speech", response=True, padding_side="right")
    losses, rows = loaded.family.spoken_losses(loaded.model, batch)
    return summed(losses, rows, len(clips))


def _check_once(loaded: LoadedModel, batch: PreparedBatch) -> None:
    """Make sure, once a model, that its losses are those of its own forward pass.

    Raises:
        ModelError: they are not.
    """
    if loaded.model in _CHECKED:
        return
    arguments = decoder_arguments(loaded.decoder, batch)
    check_head(loaded, batch, last_states(loaded.decoder(**arguments, use_cache=False)))
    _CHECKED.add(loaded.model)
