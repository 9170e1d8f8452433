"""What every part of a file is built of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all parts: unknown keys are ignored, numbers must be finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, validate_assignment=True, defer_build=True)


class Estimate(Record):
    """A value with its two-sided interval (None where none could be computed)."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    caution: Literal["few clusters", "one speaker"] | None = None
    """Why the interval is not to be relied on: fewer than 20 clusters were drawn, or all clips are of one speaker."""

    def scaled(self, factor: float) -> Estimate:
        """The same in a unit that is `1 / factor` as large; a negative factor turns the bounds around."""
        bounds = [None if bound is None else factor * bound for bound in (self.low, self.high)]
        low, high = bounds if factor >= 0 else bounds[::-1]
        return self.model_copy(update={"value": factor * self.value, "low": low, "high": high})

    def negated(self) -> Estimate:
        """The estimate with its sign, and so its bounds, turned."""
        return self.scaled(-1)
