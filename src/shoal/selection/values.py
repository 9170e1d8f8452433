"""What a metric says of going without some layers, by the audit that measured it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from shoal.errors import UsageError
from shoal.schema import Estimate, Importance, InputAudit, MetricValues, Part, Scope

Values = MetricValues | Importance
"""What plans are chosen by."""


def find_importance(measured: InputAudit, option: str, part: Part, scope: Scope | None) -> Importance:
    """What the audit measured that `--metric` calls `option`: in the scope asked for, or in the first there is.

    Raises:
        UsageError: it was not measured.
    """
    of_part = [item for item in measured.importance if item.part == part]
    for item in of_part:
        if item.option == option and scope in (None, item.scope):
            return item
    cosines = [] if part != "layer" else list(dict.fromkeys(n for s in measured.scopes.values() for n in s.metrics))
    known = [*cosines, *dict.fromkeys(item.option for item in of_part)]
    hint = f" (did you mean {close[0]}?)" if (close := get_close_matches(option, known, 1, 0.75)) else ""
    of = "" if part == "layer" else f" of the {part} of layers"
    where = "" if scope is None else f" in scope {scope}"
    flags = f"--metric {option.partition('-')[0]}" + ("" if part == "layer" else f" --part {part}")
    raise UsageError(
        f"the audit did not measure {option!r}{of}{where} with {measured.input} input{hint}",
        where="metric",
        fix=f"it has {', '.join(known) or 'nothing'}; others are measured by shoal audit {flags}",
    )


def value_of(values: Values, layers: Sequence[int], level: float) -> Estimate | None:
    """The value without `layers` (one, or a block); None if it was refused, or dropped by a race.

    A race measures what it drops on fewer clips, so that its mean stands beside none of the others. A metric of single
    layers has the sum over a block's layers; so has an additive importance of a block that was not measured itself.
    Sums have no interval.

    Raises:
        UsageError: it was not measured.
    """
    if isinstance(values, MetricValues):
        return values.estimate(layers, level)
    layers = list(layers)
    if layers in values.candidates:
        return _candidate(values, values.candidates.index(layers), level)
    if values.additive and len(layers) > 1:
        singles = [value_of(values, [layer], level) for layer in layers]
        known = [single.value for single in singles if single is not None]
        return Estimate(value=sum(known), level=level) if len(known) == len(layers) else None
    raise UsageError(
        f"the audit did not measure the {values.name} without {_named(layers)}",
        where="metric",
        fix=f"measure all of them: shoal audit --metric {values.metric} --block-sizes {len(layers)}",
    )


def _candidate(item: Importance, index: int, level: float) -> Estimate | None:
    value = item.values[index]
    if value is None or index in item.refused or item.clips[index] < max(item.clips):
        return None
    low, high = (None if bounds is None else bounds[index] for bounds in (item.low, item.high))
    return Estimate(value=value, low=low, high=high, level=level)


def _named(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
