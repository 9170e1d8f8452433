"""How long work says how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (the stage, how much of it is done, how much there is in all).

A stage is reported when it begins, with what an earlier run has left of it, and after every part. A total of 1 is a
stage that cannot tell how far it is.
"""


def report_progress(progress: Progress | None, stage: str, done: int, total: int) -> None:
    """Report to `progress`, if there is one."""
    if progress is not None:
        progress(stage, done, total)


@contextmanager
def stage(progress: Progress | None, name: str) -> Iterator[None]:
    """Report a stage that cannot tell how far it is."""
    report_progress(progress, name, 0, 1)
    yield
    report_progress(progress, name, 1, 1)
