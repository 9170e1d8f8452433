"""`--batch-size auto`: how many clips are decoded at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.evaluation.engine import fitting_slots, prompts_of, supported
from shoal.evaluation.settings import limit_of
from shoal.evaluation.window import WINDOW_BATCHES, embed, read_clips
from shoal.machine import free_memory

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.evaluation.settings import TokenLimit
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

USUAL = 16
"""Where it cannot be known: models that only their own `generate` decodes."""


def slots_that_fit(loaded: LoadedModel, data: Dataset, longest: Row, task: Task, limit: TokenLimit) -> int:
    """As many as the memory that is free allows, if all clips were like the longest.

    Args:
        loaded: the whole model; it embeds the longest clip.
        data: reads its audio.
        longest: the row of the longest clip.
        task: what is asked.
        limit: how many tokens a clip may get.
    """
    if not loaded.engine or not supported(loaded.lm):
        return USUAL
    clips = read_clips(data, [longest], task)
    if not clips:
        return USUAL
    batch = embed(loaded, clips, task)
    (prompt,) = prompts_of(batch.prepared, [limit_of(loaded, limit, longest)])
    # The window that is decoded, with the embeddings of all its clips.
    return fitting_slots(loaded.lm, prompt.embeds, prompt.limit, held=WINDOW_BATCHES, free=free_memory(loaded.device))
