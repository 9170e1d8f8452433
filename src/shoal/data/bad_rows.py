"""How many bad rows are too many, and how they are shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shoal.errors import ManifestError
from shoal.schema import BadRow

_log = logging.getLogger("shoal.data")
_SHOWN = 5


def refuse_too_many(bad: Sequence[BadRow], total: int, max_bad: float) -> None:
    """Stop if more than `max_bad` (a share of `total`, or a count from 1 up) of the rows are bad.

    Raises:
        ManifestError: one line naming the first bad rows.
    """
    allowed = int(max_bad) if max_bad >= 1 else int(max_bad * total + 1e-9)
    if len(bad) > allowed:
        raise ManifestError(
            f"{len(bad)} of {total} rows cannot be used and {allowed} may be left out: {named(bad)}",
            fix="mend the rows or raise --max-bad",
        )


def warn(bad: Sequence[BadRow], total: int) -> None:
    """Say on the log (stderr) which rows are left out; nothing if there are none."""
    if bad:
        _log.warning("warning: %d of %d rows left out: %s", len(bad), total, named(bad))


def named(bad: Sequence[BadRow]) -> str:
    """The first few rows as `manifest:line: reason`, and how many more there are."""
    shown = "; ".join(f"{row.manifest}:{row.line}: {row.reason}" for row in bad[:_SHOWN])
    return shown if len(bad) <= _SHOWN else f"{shown}; and {len(bad) - _SHOWN} more"
