"""Progress on stderr: one bar a step on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from shoal.progress import Progress

console = Console(stderr=True, highlight=False)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars that appear as steps report themselves; the same step name moves its bar."""
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=False) as bars:
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report


def in_megabytes(progress: Progress) -> Progress:
    """The same for steps that count bytes; a step of one is not counted in bytes."""

    def report(what: str, done: int, total: int) -> None:
        if total > 1:
            what, done, total = f"{what}, MB", done // 10**6, total // 10**6
        progress(what, done, total)

    return report


class _Lines:
    """A line a step at every tenth of the way: for log files and CI."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if tenth > self._tenths.get(what, -1):
            self._tenths[what] = tenth
            say(f"{what}: {done} of {total}")


_START = time.monotonic()


def say(line: str) -> None:
    """One line to stderr, with the seconds since the start."""
    console.print(f"[{time.monotonic() - _START:4.0f} s] {line}", markup=False, soft_wrap=True)
