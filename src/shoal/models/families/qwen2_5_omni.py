"""Qwen2.5-Omni: a Whisper-like encoder, a Qwen2 thinker, and a talker that reads the thinker's last states."""

from __future__ import annotations

from typing import Any

from shoal.models.families.omni import Omni
from shoal.models.families.windowed import one_window


class Qwen25Omni(Omni):
    """`Qwen2_5OmniForConditionalGeneration`, and its thinker alone."""

    name = "qwen2_5_omni"
    classes = ("Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5OmniForConditionalGeneration")
    limits = "The talker was trained on the states of the whole thinker."

    def longest(self, processor: Any) -> float | None:
        """One window."""
        return one_window(processor)


FAMILY = Qwen25Omni()
