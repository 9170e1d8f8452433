"""How a SpeechLLM was trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document
from shoal.schema.record import Record


class StageRecord(Record):
    """One stage of training."""

    name: str
    steps: int
    clips: int
    """Clips seen, repeated ones counted again."""
    seconds: float
    """Wall-clock seconds of its steps, over all runs that were needed."""
    trained_parameters: int
    first_loss: float
    """Of the first step, nats a token."""
    last_loss: float
    """Mean over the last tenth of the steps."""


class ValidationLoss(Record):
    """What the trained model loses on clips that it was not trained on."""

    data: str
    task: str
    clips: int
    loss: float
    """Nats a response token, of the model in memory."""
    loss_as_saved: float | None = None
    """The same of the model as it loads from the folder, whose weights may be rounded."""


class TrainingRecord(Document):
    """How a SpeechLLM was trained; lies in its folder."""

    kind: Literal["training"] = "training"
    recipe: dict[str, Any]
    data: list[DataInfo]
    """Of each source, in the recipe's order."""
    stages: list[StageRecord]
    validation: list[ValidationLoss] = Field(default_factory=list)
    encode_seconds: float = 0.0
    """Of the frozen encoder, for clips that were not in the store."""
    notes: list[str] = Field(default_factory=list)
