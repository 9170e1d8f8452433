"""What every part of a file is built of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from shoal.terms import Caution


class Record(BaseModel):
    """Base of all parts: unknown keys are ignored, numbers must be finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, validate_assignment=True, defer_build=True)


class Estimate(Record):
    """A value with its two-sided interval (None where none could be computed)."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    caution: Caution | None = None
    """Why the interval is not to be relied on."""

    def scaled(self, factor: float) -> Estimate:
        """The same in a unit that is `1 / factor` as large; a negative factor turns the bounds around."""
        bounds = [None if bound is None else factor * bound for bound in (self.low, self.high)]
        low, high = bounds if factor >= 0 else bounds[::-1]
        return self.model_copy(update={"value": factor * self.value, "low": low, "high": high})

    def negated(self) -> Estimate:
        """The estimate with its sign, and so its bounds, turned."""
        return self.scaled(-1)


class Drawn(Record):
    """What the intervals of a measurement were drawn over."""

    speakers: int = 0
    """Each with all its clips."""
    clips: int = 0
    """Each by itself: those that name no speaker, or all."""
    caution: Caution | None = None
    """Why the intervals are not to be relied on."""

    @property
    def clusters(self) -> int:
        """How many are drawn."""
        return self.speakers + self.clips


def with_caution(record: BaseModel, caution: Caution | None) -> None:
    """Note `caution` at everything in `record` that has an interval, however deep it lies."""
    if caution is not None:
        for part in _parts(record):
            if "caution" in type(part).model_fields and getattr(part, "low", None) is not None:
                part.caution = caution  # type: ignore[attr-defined]


def _parts(value: object) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name))
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts(item)


class SystemRecord(Record):
    """What was measured of one system (a model, or one plan over it)."""

    name: str
    removed: list[int] = Field(default_factory=list)
    """Layers that its plan takes, or takes a part of, in the numbering of the model that the plan is over."""
    missing: list[int] = Field(default_factory=list)
    """Layers that the checkpoint itself lacks, in the numbering of the model that it was made from."""

    @property
    def absent_layers(self) -> list[int]:
        """What it goes without, whoever took it: `missing` and `removed`, in the numbering of the original model."""
        return absent_layers(self.missing, self.removed)


def absent_layers(missing: Sequence[int], removed: Sequence[int]) -> list[int]:
    """Layers in the numbering of a model, ascending.

    Args:
        missing: layers of that model that are gone.
        removed: layers that go next, in the numbering of those left.
    """
    gone = set(missing)
    left = [layer for layer in range(len(gone) + max(removed, default=-1) + 1) if layer not in gone]
    return sorted(gone.union(left[layer] for layer in removed))
