"""What was trained after pruning, and what it took."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shoal.schema.document import DataInfo, Document, ModelInfo
from shoal.schema.plan import Plan
from shoal.schema.record import Estimate, Record
from shoal.schema.scores import Delta, MeasuredScore, error_rate_of_version_1

EDIT_RATE = "edit rate"
"""What files of version 1 hold for other tasks than recognition: edits between answer and reference, no errors."""
NONE = "none"
"""The target of a model that was pruned and not healed."""


class HealRecord(Document):
    """How a pruned model was healed; lies in its folder."""

    kind: Literal["heal"] = "heal"
    model: ModelInfo
    """The pruned model, before healing."""
    source_fingerprint: str = ""
    """Of the model that healing was asked for: not `model` where layers were removed, or put back, on the way."""
    teacher: str | None = None
    """The unpruned model, where healing asked it for states or logits."""
    target: str
    """What was trained, see `shoal.healing.targets.TARGETS`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What decides the result, besides model and data."""
    task: str
    data: DataInfo
    trained_parameters: int
    """Parameters that got a gradient, or that a fit has set."""
    fitted_clips: int = 0
    """Different clips that they were fitted on; 0 where it was not recorded."""
    fitted_positions: int = 0
    """Positions of these clips that the loss, or the fit of states, was over."""
    steps: int = 0
    """Optimizer steps; 0 for a fit in closed form."""
    clips: int = 0
    """Clips seen, repeated ones counted again."""
    seconds: float = 0.0
    """Wall-clock seconds of training, over all runs that were needed; encoding the clips is not in it."""
    last_loss: float | None = None
    """What the last step minimised, all terms together."""
    loss_before: float | None = None
    """Nats a response token on clips that were not trained on, before healing; None where none were given."""
    loss_after: float | None = None
    """The same afterwards."""
    loss_clips: int = 0
    """The clips of these two losses; 0 where they were not counted."""
    notes: list[str] = Field(default_factory=list)
    """What a reader should know, such as where memory ran out."""


class HealingCell(Record):
    """One pruned model, healed by one target or not at all, on the test clips."""

    plan: Plan
    target: str
    """Or `NONE`."""
    layers: int
    """Decoder layers left; `replace` puts one back."""
    parameters: int
    """Of the whole model."""
    trained_parameters: int = 0
    fitted_clips: int = 0
    """Different clips that they were fitted on; 0 where it was not recorded."""
    fitted_positions: int = 0
    """Positions of these clips that the loss, or the fit of states, was over."""
    steps: int = 0
    seconds: float = 0.0
    """Of healing."""
    loss: Estimate | None = None
    """Nats a response token on the test clips."""
    score: MeasuredScore
    """The headline score of the task on the test clips; its difference is from the unpruned model."""
    recovered: Estimate | None = None
    """Share of what pruning cost that healing took back: 1 is all of it; None where pruning cost nothing."""
    bought: Delta | None = None
    """From the same plan without healing, on the same clips."""
    notes: list[str] = Field(default_factory=list)
    """What a reader should know of healing, such as a fit on few positions."""

    @property
    def warnings(self) -> list[str]:
        """The notes that make its numbers doubtful."""
        return [note for note in self.notes if "warning: " in note]


class Healing(Document):
    """What healing gains: plans × targets, evaluated on the same clips."""

    kind: Literal["healing"] = "healing"
    schema_version: int = 2
    model: ModelInfo
    task: str
    data: DataInfo
    """The test clips."""
    train_data: DataInfo
    settings: dict[str, Any] = Field(default_factory=dict)
    score_name: str
    """Such as `WER` or `BLEU`."""
    baseline: MeasuredScore
    """Of the unpruned model."""
    baseline_loss: Estimate | None = None
    """Nats a response token of the unpruned model on the test clips."""
    cells: list[HealingCell] = Field(default_factory=list)
    skipped: list[str] = Field(default_factory=list)
    """Cells that could not be, and why."""

    @classmethod
    def upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Before version 2 every task was healed for its rate of edits, which only recognition calls WER."""
        return {
            **data,
            "score_name": "WER" if data.get("task") == "asr" else EDIT_RATE,
            "baseline": error_rate_of_version_1(data["baseline_wer"], None, None),
            "cells": [
                {**cell, "score": error_rate_of_version_1(cell["wer"], cell.get("delta"), None)}
                for cell in data.get("cells", ())
            ],
        }
