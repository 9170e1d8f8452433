"""What every part of a file is built of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all parts: unknown keys are ignored, numbers must be finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, validate_assignment=True)


class Estimate(Record):
    """A value with its two-sided percentile interval (None where none could be computed)."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
