"""How requirements are written: `--max-wer 10%`, `--require "UAR>=0.6"`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from shoal.errors import UsageError
from shoal.settings import use_one_of
from shoal.validation.requirements import (
    ChangeLimit,
    GroupChangeLimit,
    Requirement,
    ScoreLimit,
    SizeLimit,
    SpeedLimit,
    TaskTested,
)

RECOGNITION = "asr"
"""The task that `--max-wer` is about: other tasks may have a WER too."""
BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_FORM = re.compile(r"^\s*(?P<name>.+?)(?:\s+(?P<change>increase|drop))?\s*(?P<sign><=|>=)\s*(?P<value>\S+)\s*$")


def parse(text: str) -> Requirement:
    """`"UAR>=0.6"`, `"WER<=10%"`, `"BLEU drop<=1.5"`, `"WER increase<=5%"` → a requirement.

    A change in per cent is relative to the baseline; without, it is in the score's own unit. For a score that is a
    fraction, 1 or more without a per cent sign is refused once the score is there (`WER<=10`).

    Raises:
        UsageError: it is none of these.
    """
    match = _FORM.match(text)
    if match is None:
        raise _no_requirement(text)
    name, change, at_most = match["name"], match["change"], match["sign"] == "<="
    value, percent = match["value"].removesuffix("%"), match["value"].endswith("%")
    limit = _number(value, text)
    called = f"{name}{f' {change}' if change else ''} {match['sign']} {match['value']}"
    points = limit >= 1 and not percent
    if not change:
        return ScoreLimit(called, name, limit, at_most, percent=percent, points=points)
    scaled = limit / 100 if percent else limit
    return ChangeLimit(called, name, scaled, relative=percent, drop=change == "drop", at_most=at_most, points=points)


def max_wer(share: float) -> Requirement:
    """The WER of recognition, as a share."""
    return ScoreLimit(f"WER <= {share:.1%}", "WER", share, at_most=True, task=RECOGNITION)


def max_wer_increase(share: float) -> Requirement:
    """The increase of the WER of recognition, as a share of the baseline's."""
    return ChangeLimit(f"WER increase <= {share:.1%}", "WER", share, relative=True, drop=False, task=RECOGNITION)


def min_share(score: str, share: float) -> Requirement:
    """A score that is a fraction, on any task."""
    return ScoreLimit(f"{score} >= {share:.1%}", score, share, at_most=False)


def max_group_increase(share: float) -> Requirement:
    """The worst group's increase, as a share of its own baseline."""
    return GroupChangeLimit(f"worst group's increase <= {share:.1%}", share)


def max_latency_ratio(ratio: float) -> Requirement:
    """Time over the unpruned model's."""
    return SpeedLimit(f"latency ratio <= {ratio:g}", ratio, speedup=False)


def min_speedup(factor: float) -> Requirement:
    """The unpruned model's time over its own."""
    return SpeedLimit(f"speedup >= {factor:g}", factor, speedup=True)


def max_size(text: str) -> Requirement:
    """`300MB`, `1.2GB` or a number of bytes; a MB is a million.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in BYTES:
        raise UsageError(f"{text!r} is not a size", where="--max-size", fix="write 300MB or 1.2GB")
    return SizeLimit(f"size <= {text}", _number(match[1], text) * BYTES[unit])


def require_task(name: str) -> Requirement:
    """A result for a task.

    Raises:
        UsageError: there is no such task.
    """
    from shoal import tasks

    if name not in tasks.names():
        raise UsageError(f"unknown task {name!r}", where="--require-task", fix=use_one_of(name, tasks.names()))
    return TaskTested(f"a result for {name}", name)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _no_requirement(whole) from None
    if not 0 <= value < float("inf"):
        raise _no_requirement(whole)
    return value


def _no_requirement(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is no requirement", where="--require", fix='write "UAR>=0.6", "WER<=10%" or "BLEU drop<=1.5"'
    )


OPTIONS: dict[str, Callable[[Any], Requirement]] = {
    "max_latency_ratio": max_latency_ratio,
    "min_speedup": min_speedup,
    "max_wer": max_wer,
    "max_wer_increase": max_wer_increase,
    "max_group_increase": max_group_increase,
    "min_bleu": lambda text: parse(f"BLEU>={text}"),
    "min_chrf": lambda text: parse(f"chrF>={text}"),
    "min_accuracy": lambda share: min_share("accuracy", share),
    "min_uar": lambda share: min_share("UAR", share),
    "max_bleu_drop": lambda text: parse(f"BLEU drop<={text}"),
    "max_size": max_size,
}
"""Option → the requirement that its value makes."""
