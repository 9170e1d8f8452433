"""An axis for values of which a few tower over the rest and some may be negative.

Linear around zero and logarithmic beyond, so that neither the layers that hardly matter nor those without which nothing
works are flattened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import asinh, ceil, floor, log10
from statistics import median
from typing import Any

from shoal.schema import Estimate

TOWERS = 8.0
"""Largest value over the median from which a linear axis would flatten what matters."""
MOST_TICKS = 5


@dataclass(frozen=True)
class Stretch:
    """The scale of one axis; plain if `linear` is None, else linear up to about `linear`."""

    linear: float | None

    def __call__(self, value: float) -> float:
        """Where a value stands on the axis."""
        return value if self.linear is None else asinh(value / self.linear)

    def of(self, estimate: Estimate) -> Estimate:
        """Where an estimate and its bounds stand on the axis."""
        low, high = (None if bound is None else self(bound) for bound in (estimate.low, estimate.high))
        return estimate.model_copy(update={"value": self(estimate.value), "low": low, "high": high})

    def ticks(self, values: Sequence[float]) -> dict[str, Any]:
        """Plotly's `tickvals` and `ticktext` for the span of `values`; empty where the axis is plain."""
        if self.linear is None:
            return {}
        shown = _labels(self.linear, min(values), max(values))
        return {"tickvals": [self(tick) for tick in shown], "ticktext": [_text(tick) for tick in shown]}


def stretch_for(values: Iterable[float]) -> Stretch:
    """Plain unless the largest size of a value is many times the median size."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes or sizes[-1] <= TOWERS * median(sizes):
        return Stretch(None)
    return Stretch(median(sizes))


def _labels(linear: float, low: float, high: float) -> list[float]:
    """Zero, and powers of ten on either side, thinned out from below where they are many."""
    top = max(abs(low), abs(high))
    powers = [10.0**power for power in range(ceil(log10(linear)), floor(log10(top)) + 1)]
    step = max(1, ceil(len(powers) / MOST_TICKS))
    kept = (powers or [float(f"{top:.1g}")])[::-1][::step]
    return sorted([0.0, *(p for p in kept if p <= high), *(-p for p in kept if -p >= low)])


def _text(value: float) -> str:
    return f"{value:g}".replace("-", "−")
