"""What decides the result of healing, besides model and data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shoal.healing.linear import RIDGE
from shoal.training.settings import LoraSettings, Objective, Optimisation, Strict

STEPS = 500
CLIPS = 16


class LinearSettings(Strict):
    """The closed form, see `shoal.healing.linear.fit_linear`."""

    fit: Literal["map", "weights"] = "weights"
    ridge: float = Field(default=RIDGE, gt=0)
    weighting: Literal["none", "relative"] = "relative"
    clips: int = Field(default=256, ge=1)
    """Of the training data at most, evenly spaced."""


class HealSettings(LoraSettings):
    """How a pruned model is healed."""

    target: str
    optimisation: Optimisation = Optimisation(steps=STEPS, clips=CLIPS)
    objective: Objective = Objective()
    start: Literal["plain", "linear"] = "plain"
    """What training begins from: the pruned model, or that model healed by `linear`."""
    linear: LinearSettings = LinearSettings()
    seed: int = 0
