"""Timing several things so that the machine's moods hit all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Timings = dict[str, list[float]]
Figures = dict[str, float]


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(jobs: Mapping[str, Callable[[], float]], runs: int, *, warm_up: bool = True) -> Timings:
    """Seconds of every job in every run, after one warm-up of each.

    Every run does all jobs, every second one in reverse, so that none always follows the same other.

    Args:
        jobs: name → a call that does the work once and returns its seconds.
        runs: how often each is timed.
        warm_up: do each once before; not where every job warms itself up.
    """
    timings: Timings = {name: [] for name in jobs}
    for job in jobs.values() if warm_up else ():
        job()
    for run in range(runs):
        for name in list(jobs)[:: -1 if run % 2 else 1]:
            timings[name].append(jobs[name]())
    return timings


def median_ratio(timings: Timings, a: str, b: str) -> float:
    """Median over the runs of seconds of `a` / seconds of `b` in the same run."""
    return statistics.median(x / y for x, y in zip(timings[a], timings[b], strict=True))


def print_times(timings: Timings, against: str) -> None:
    """Median seconds, and the median of the ratios with their spread over the runs."""
    print(f"{'':<36} {'seconds':>9}  over {against} (min to max of {len(timings[against])} runs)")
    for name, seconds in timings.items():
        ratios = [a / b for a, b in zip(seconds, timings[against], strict=True)]
        spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{name:<36} {statistics.median(seconds):>9.2f}  {statistics.median(ratios):.3f} {spread}")


def rounded(value: float) -> float:
    """To four digits after the point."""
    return round(value, 4)
