"""Numbers and names as a reader wants them: unit, sign and interval, and never more digits than they carry."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import chain
from itertools import count as count_from
from math import floor, log10
from typing import TYPE_CHECKING

from shoal.terms import FEW_CLUSTERS, Caution, Part

if TYPE_CHECKING:
    from shoal.schema import Drawn, Estimate, Plan, Until

SPACE = "\u202f"
MISSING = "not measured"
MEAN_OF_RATIOS = "a mean over clips of ratios within a round, not the ratio of the mean times"

FEW_CLIPS = 200
"""What is measured on fewer clips comes with a caution."""

MARKS: dict[Caution, str] = {"few clusters": "†", "one speaker": "‡"}
"""What stands behind the bracket of an interval that is not to be relied on."""
FOOTNOTES = {
    MARKS["few clusters"]: f"† from fewer than {FEW_CLUSTERS} speakers (or clips): the interval is unreliable",
    MARKS["one speaker"]: "‡ all clips are of one speaker: the interval says nothing of other speakers",
}

Number = Callable[[float], str]


def fixed(value: float, digits: int) -> str:
    """`value` with `digits` decimals and a true minus sign; never `-0`."""
    text = f"{value:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def percent_digits(largest: float, most: int = 2) -> int:
    """Digits after the point for shares up to `largest`: two below 10 %, none from 100 %, at most `most`."""
    return min(most, 2 if largest < 0.1 else 1 if largest < 1 else 0)


def percent(value: float, digits: int | None = None) -> str:
    """A share as `12.3 %`."""
    return f"{fixed(100 * value, percent_digits(abs(value)) if digits is None else digits)}{SPACE}%"


def percent_number(estimate: Estimate, *, most: int = 2) -> Number:
    """How to write the value and the bounds of a share in percent, all with the same digits."""
    bounds = [bound for bound in (estimate.low, estimate.high) if bound is not None]
    digits = percent_digits(max(abs(value) for value in (estimate.value, *bounds)), most)
    return lambda value: fixed(100 * value, digits)


def number_of(estimate: Estimate, *, sign: bool = False) -> Number:
    """How to write an estimate and its bounds: two digits of the largest, and all with the same."""
    bounds = [bound for bound in (estimate.low, estimate.high) if bound is not None]
    largest = max(abs(value) for value in (estimate.value, *bounds))
    digits = 1 if largest == 0 else min(5, max(1, 1 - floor(log10(largest))))

    def number(value: float) -> str:
        text = fixed(value, digits) if value else "0"
        # Zero has no sign.
        return signed(text) if sign and any(digit in text for digit in "123456789") else text

    return number


def signed(text: str) -> str:
    """Puts a plus sign before a number that has no minus sign."""
    return text if text.startswith("−") else f"+{text}"


def with_interval(estimate: Estimate | None, number: Number, unit: str = "") -> str:
    """`value unit [low, high]`, or `value unit (no interval)`."""
    if estimate is None:
        return MISSING
    value = f"{number(estimate.value)}{unit}"
    bounds = interval(estimate, number)
    return f"{value} {bounds}" if bounds else f"{value} (no interval)"


def interval(estimate: Estimate, number: Number) -> str:
    """`[low, high]`, with the mark of its caution if it has one; nothing if there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low)}, {number(estimate.high)}]{mark(estimate)}"


def drawn_over(drawn: Drawn | None, cluster: str) -> str:
    """What intervals were drawn over: `44 clips`, `12 speakers`; without a number in files that did not note it."""
    if drawn is None:
        return "speakers" if cluster == "speaker" else "clips"
    clips = plural(drawn.clips, "clip")
    if not drawn.speakers:
        return f"{clips} of one speaker" if drawn.caution == "one speaker" else clips
    speakers = plural(drawn.speakers, "speaker")
    return f"{speakers} and {clips} that name none" if drawn.clips else speakers


def mark(estimate: Estimate) -> str:
    """What stands behind the bracket of its interval."""
    return MARKS[estimate.caution] if estimate.caution else ""


def footnotes(text: str) -> list[str]:
    """What the marks at the intervals in `text` mean, one line for each."""
    return [note for mark, note in FOOTNOTES.items() if f"]{mark}" in text]


def plain(estimate: Estimate | None, form: str = ".1f", *, scale: float = 1.0, unit: str = "") -> str:
    """`0.93 [0.91, 0.95]` as a terminal and a card have it, with ASCII signs; empty for None.

    Args:
        estimate: the value alone is written where it has no interval.
        form: format of each number.
        scale: what each is multiplied with, such as 100 for per cent.
        unit: written after the value.
    """
    if estimate is None:
        return ""
    bounds = interval(estimate, lambda bound: f"{scale * bound:{form}}")
    return f"{scale * estimate.value:{form}}{unit} {bounds}".rstrip()


def plain_score(estimate: Estimate | None, form: str = ".1f", *, fraction: bool) -> str:
    """`12.3 % [11.0, 13.9]` for a score that is a fraction; other scores have no unit."""
    return plain(estimate, form, scale=100 if fraction else 1, unit=" %" if fraction else "")


def percent_estimate(estimate: Estimate | None) -> str:
    """`12.3 % [10.1, 14.9]`."""
    return MISSING if estimate is None else with_interval(estimate, percent_number(estimate), f"{SPACE}%")


def relative_change(estimate: Estimate | None) -> str:
    """`+9.1 % [−0.4, +18.0]`."""
    return _change(estimate, f"{SPACE}%", most=1)


def absolute_change(estimate: Estimate | None) -> str:
    """`+1.09 points [−0.49, +2.67]`: percentage points."""
    return _change(estimate, " points", most=2)


def _change(estimate: Estimate | None, unit: str, *, most: int) -> str:
    if estimate is None:
        return MISSING
    number = percent_number(estimate, most=most)
    return with_interval(estimate, lambda value: signed(number(value)), unit)


def ratio(value: float | None) -> str:
    """`0.87×`."""
    return MISSING if value is None else f"{fixed(value, 2)}×"


def ratio_estimate(estimate: Estimate | None) -> str:
    """`0.87× [0.85, 0.89]`."""
    return with_interval(estimate, lambda value: fixed(value, 2), "×")


def number_estimate(estimate: Estimate | None, digits: int = 3) -> str:
    """`0.081 [0.078, 0.085]`."""
    return with_interval(estimate, lambda value: fixed(value, digits))


def milliseconds(estimate: Estimate | None, unit: str = f"{SPACE}ms") -> str:
    """Seconds shown as `41.2 ms [40.0, 42.4]`."""
    return with_interval(estimate, lambda value: fixed(1000 * value, 1), unit)


def count(value: int) -> str:
    """`1,234` up to a million, then `3.54 M` or `1.24 B`."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M")):
        if value >= size:
            return f"{value / size:.3g}{SPACE}{unit}" if value < 100 * size else f"{value / size:.0f}{SPACE}{unit}"
    return f"{value:,}"


def mebibytes(value: int | None) -> str:
    """`531 MiB`."""
    return MISSING if value is None else f"{value / 2**20:,.0f}{SPACE}MiB"


def duration(seconds: float) -> str:
    """`42 s`, `3.6 min` or `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f}{SPACE}s"
    return f"{seconds / 60:.1f}{SPACE}min" if seconds < 5400 else f"{seconds / 3600:.1f}{SPACE}h"


def plural(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def few_clips(number: int) -> str:
    """The caution where they are few; else nothing."""
    if number >= FEW_CLIPS:
        return ""
    few = "1 clip is" if number == 1 else f"{number} clips are"
    return f"{few} few. The intervals cover the choice of clips and of named speakers, not of rooms or topics."


def stopped(until: Until) -> str:
    """How an audit came to stop."""
    last = until.looks[-1]
    of = f"{last.clips} of {plural(until.offered, 'clip')}"
    sure = f"best (or within 2 %) in {last.least:.1%} of replicates or more"
    if until.stable:
        return f"stopped by itself after {of}: the block of each size to half of the depth is {sure}, twice in a row"
    asked = f"{until.target:.0%} was asked for, twice in a row"
    return f"was not stable after {of}: the block of {plural(last.n, 'layer')} is {sure}, and {asked}; give more clips"


def p_value(value: float | None) -> str:
    """`0.012`, `< 0.001` or a dash."""
    if value is None:
        return "–"
    return f"<{SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending layers as half-open ranges: `[3, 4, 5, 9]` → `[(3, 6), (9, 10)]`."""
    ranges: list[tuple[int, int]] = []
    for layer in layers:
        if ranges and ranges[-1][1] == layer:
            ranges[-1] = (ranges[-1][0], layer + 1)
        else:
            ranges.append((layer, layer + 1))
    return ranges


def layer_names(layers: Sequence[int]) -> str:
    """`layers 21–24`, `layer 7` or `layers 3, 9, 14–16`."""
    if not layers:
        return "no layer"
    parts = [str(start) if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in runs(layers)]
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(parts)}"


PART_OF: dict[Part, str] = {"layer": "", "attention": "the attention of ", "mlp": "the MLP of "}


def removed_names(plan: Plan) -> str:
    """`layers 21–24`, or `the attention of layers 21–24` where only that goes."""
    return f"{PART_OF[plan.part]}{layer_names(plan.layers)}"


def without_noun(names: str) -> str:
    """Names of layers for a table whose heading says “layers”."""
    return names.partition(" ")[2] if names.startswith("layer") else names.removeprefix("the ")


def may_also_begin(rivals: Sequence[int]) -> str:
    """`11, 13–15`: where the other blocks begin that may be the best."""
    return without_noun(layer_names(rivals)) if rivals else "nowhere else"


def half_open(layers: Sequence[int]) -> str:
    """`[21, 25)`, several joined by a union sign."""
    return " ∪ ".join(f"[{start}, {stop})" for start, stop in runs(layers)) or "∅"


def level_name(level: float) -> str:
    """`95 %`."""
    return f"{100 * level:g}{SPACE}%"


def fitted_on(clips: int, positions: int) -> str:
    """`60 clips, 3,710 positions`: what weights were fitted on, as records count it."""
    return f"{plural(clips, 'clip')}, {plural(positions, 'position')}" if clips else "not recorded"


def listing(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def first_of(names: Sequence[str], total: int) -> str:
    """`a, b, …` of a list that may be longer than what is named."""
    return ", ".join(names) + (", …" if total > len(names) else "")


def unused(name: str, taken: Container[str], separator: str) -> str:
    """`name`, or the first of `NAME#2`, `NAME#3` … (with the separator `#`) that is not taken."""
    candidates = chain([name], (f"{name}{separator}{number}" for number in count_from(2)))
    return next(candidate for candidate in candidates if candidate not in taken)
