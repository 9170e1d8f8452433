"""How promises are written: `--max-wer 10%`, `--require "UAR>=0.6"`."""

from __future__ import annotations

import re

from shoal.cards.measured import RECOGNITION
from shoal.errors import UsageError
from shoal.validation.requirements import Change, GroupChange, Level, Promise, Size, Speed, TaskTested

BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_FORM = re.compile(
    r"^\s*(?P<name>.+?)(?:\s+(?P<change>increase|drop))?\s*(?P<sign><=|>=)\s*(?P<value>\S+)\s*$"
)


def parse(text: str) -> Promise:
    """`"UAR>=0.6"`, `"WER<=10%"`, `"BLEU drop<=1.5"`, `"WER increase<=5%"` → a promise.

    A change in per cent is relative to the baseline; without, it is in the score's own unit.

    Raises:
        UsageError: it is none of these.
    """
    match = _FORM.match(text)
    if match is None:
        raise _no_promise(text)
    name, change, at_most = match["name"], match["change"], match["sign"] == "<="
    value, percent = match["value"].removesuffix("%"), match["value"].endswith("%")
    limit = _number(value, text)
    called = f"{name}{f' {change}' if change else ''} {match['sign']} {match['value']}"
    if not change:
        return Level(called, name, limit, at_most, percent=percent)
    scaled = limit / 100 if percent else limit
    return Change(called, name, scaled, relative=percent, drop=change == "drop", at_most=at_most)


def max_wer(share: float) -> Promise:
    """The WER of recognition, as a share."""
    return Level(f"WER <= {share:.1%}", "WER", share, at_most=True, task=RECOGNITION)


def max_wer_increase(share: float) -> Promise:
    """The increase of the WER of recognition, as a share of the baseline's."""
    return Change(f"WER increase <= {share:.1%}", "WER", share, relative=True, drop=False, task=RECOGNITION)


def max_group_increase(share: float) -> Promise:
    """The worst group's increase, as a share of its own baseline."""
    return GroupChange(f"worst group's increase <= {share:.1%}", share)


def at_least(score: str, text: str) -> Promise:
    """A score from below; `text` is a number on the score's scale, or a percentage of a fraction."""
    return parse(f"{score}>={text}")


def max_drop(score: str, text: str) -> Promise:
    """How far a score may fall: `1.5` in its unit, or `5%` of the baseline's."""
    return parse(f"{score} drop<={text}")


def max_latency_ratio(ratio: float) -> Promise:
    """Time over the unpruned model's."""
    return Speed(f"latency ratio <= {ratio:g}", ratio, speedup=False)


def min_speedup(factor: float) -> Promise:
    """The unpruned model's time over its own."""
    return Speed(f"speedup >= {factor:g}", factor, speedup=True)


def max_size(text: str) -> Promise:
    """`300MB`, `1.2GB` or a number of bytes; a MB is a million.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in BYTES:
        raise UsageError(f"{text!r} is not a size", where="--max-size", fix="write 300MB or 1.2GB")
    return Size(f"size <= {text}", _number(match[1], text) * BYTES[unit])


def require_task(name: str) -> Promise:
    """A result for a task.

    Raises:
        UsageError: there is no such task.
    """
    from shoal import tasks

    if name not in tasks.names():
        raise UsageError(
            f"unknown task {name!r}", where="--require-task", fix=f"choose one of {', '.join(tasks.names())}"
        )
    return TaskTested(f"a result for {name}", name)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _no_promise(whole) from None
    if not 0 <= value < float("inf"):
        raise _no_promise(whole)
    return value


def _no_promise(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is no promise", where="--require", fix='write "UAR>=0.6", "WER<=10%" or "BLEU drop<=1.5"'
    )
