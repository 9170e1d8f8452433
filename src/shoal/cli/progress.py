"""Progress on stderr: a bar for each stage on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SHORT = 5.0
"""Seconds of a stage that a log says nothing of."""
SECONDS_BETWEEN_LINES = 30.0
"""Of one stage in a log: it stays short, and a long stage is not silent."""
STORED = ("transcribe", "cells", "encode")
"""Stages whose parts are stored as soon as they are done."""
_START = time.monotonic()


class Interrupted(ShoalError):
    """The user stopped the command."""

    exit_code = 130


@dataclass
class Stage:
    """How far a stage is."""

    name: str
    found: int
    """How much of it was there when it began: an earlier run had done that."""
    done: int = 0
    total: int = 0
    start: float = 0.0
    shown: float = 0.0
    """When its last line was shown."""

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.start

    @property
    def rate(self) -> str:
        """`2.1/s`, or `4.0 s each` where one takes longer than a second."""
        made = self.done - self.found
        if self.total < 2 or made < 1 or not self.seconds:
            return ""
        return f"{made / self.seconds:.1f}/s" if made > self.seconds else f"{self.seconds / made:.1f} s each"

    def line(self) -> str:
        """For a log."""
        rate = f", {self.rate}" if self.rate else ""
        count = f"{self.done} of {self.total}, " if self.total > 1 else ""
        return f"{self.name}: {count}{self.seconds:.0f} s{rate}"


class Reporter:
    """Shows the stages of a command as they report themselves; the same name is the same stage.

    Args:
        folder: where the command stores what it has done, to go on from there; None if it must begin again.
        bars: where bars are drawn; None writes lines.
        quiet: shows nothing, and still knows how far the command is.
    """

    def __init__(self, folder: Path | None = None, bars: Bars | None = None, *, quiet: bool = False) -> None:
        self.folder, self.bars, self.quiet = folder, bars, quiet
        self.stages: dict[str, Stage] = {}
        self.last: Stage | None = None

    def __call__(self, name: str, done: int, total: int) -> None:
        """A stage is at `done` of `total`; a total of 1 is a stage that cannot tell how far it is."""
        stage, now = self.stages.get(name), time.monotonic()
        if new := stage is None or done < stage.done:
            stage = self.stages[name] = Stage(name, done, start=now, shown=now)
        ended = done >= total > stage.done
        self.last, stage.done, stage.total = stage, done, total
        if self.quiet:
            return
        if new and 0 < done <= total and total > 1:
            found = f"{done} of {total} found" + (f" in {self.folder}" if self.folder else "")
            self.say(f"{name}: {found}" + (", nothing left to do" if done == total else ""))
        if self.bars is not None:
            _draw(self.bars, list(self.stages).index(name), stage)
        elif (ended and stage.seconds > SHORT) or now - stage.shown > SECONDS_BETWEEN_LINES:
            stage.shown = now
            self.say(stage.line())

    def say(self, line: str) -> None:
        """One line to stderr, with the seconds since the start."""
        if not self.quiet:
            from rich.console import Console

            console = self.bars.console if self.bars else Console(stderr=True, highlight=False)
            console.print(f"[{time.monotonic() - _START:4.0f} s] {line}", markup=False, soft_wrap=True)

    def interrupted(self) -> Interrupted:
        """What the user is told who stopped the command."""
        stage, position = self.last, ""
        if stage is not None and stage.total > 1 and stage.name.startswith(STORED):
            position = f": {stage.done} of {stage.total} stored"
        elif stage is not None:
            position = f" during {stage.name}" + (f", {stage.done} of {stage.total}" if stage.total > 1 else "")
        return Interrupted(
            f"Interrupted{position}; run the same command to {'go on' if self.folder else 'begin again'}"
        )


def _draw(bars: Bars, index: int, stage: Stage) -> None:
    if index == len(bars.task_ids):
        bars.add_task(stage.name, total=None, count="", rate="")
    # Without a total the bar only moves, and the time counts.
    known = stage.total if stage.total > 1 or stage.done >= stage.total else None
    count = f"{stage.done}/{stage.total}" if stage.total > 1 else ""
    bars.update(bars.task_ids[index], completed=stage.done, total=known, count=count, rate=stage.rate)


@contextmanager
def progress_bars(folder: Path | None = None, *, quiet: bool = False) -> Iterator[Reporter]:
    """Bars on a terminal, lines elsewhere, nothing if `quiet`.

    Args:
        folder: see `Reporter`.
        quiet: see `Reporter`.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    class TimeLeft(rich_progress.TimeRemainingColumn):
        def render(self, task: rich_progress.Task) -> Text:
            return super().render(task) if task.total and task.total > 1 else Text()

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[count]}"),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeElapsedColumn(),
        TimeLeft(),
    )
    with rich_progress.Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        reporter = Reporter(folder, None if bars.disable else bars, quiet=quiet)
        try:
            yield reporter
        except KeyboardInterrupt:
            raise reporter.interrupted() from None


def in_megabytes(progress: Progress) -> Progress:
    """The same for steps that count bytes; a step of one is not counted in bytes."""

    def report(stage: str, done: int, total: int) -> None:
        if total > 1:
            stage, done, total = f"{stage}, MB", done // 10**6, total // 10**6
        progress(stage, done, total)

    return report
