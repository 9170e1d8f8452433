"""Speech recognition: write down what is said, in the language it is said in."""

from __future__ import annotations

from shoal.tasks.base import Task


class Asr(Task):
    """Recognition, scored by word error rate; by character error rate where a script has no spaces."""
