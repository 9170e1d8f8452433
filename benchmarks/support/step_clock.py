"""Reading the clock around training steps and their parts, on any device."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from transformers import TrainerCallback


def now(device: torch.device) -> float:
    """Seconds, once everything that was sent to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    """What the numbers were measured on."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type}, {torch.get_num_threads()} threads"


class StepClock(TrainerCallback):
    """The time at the end of every step, when its line has been logged; the first step is the warm-up.

    A step is all that lies between two such ends: its batch is put together, forward, backward, optimizer, log.

    Args:
        device: what is waited for.
        steps: the Trainer is stopped after so many; it may have batches left, so that what fetches a batch ahead has
            one to fetch in each step that counts.
    """

    def __init__(self, device: torch.device, steps: int) -> None:
        self._device, self._steps = device, steps
        self._ends: list[float] = []
        self.losses: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Of every step but the first."""
        return [after - before for before, after in pairwise(self._ends)]

    def tick(self) -> None:
        """A step has ended."""
        self._ends.append(now(self._device))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the Trainer in time."""
        del args
        control.should_training_stop = control.should_training_stop or state.global_step >= self._steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """A step's line; the summary at the end has no loss of a step."""
        del args, state, control
        if logs is not None and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.tick()


class Laps:
    """Seconds of consecutive parts.

    Args:
        device: what is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, now(device)
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """`name` has ended just now."""
        end = now(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + end - self._last
        self._last = end
