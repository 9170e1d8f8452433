"""Speech recognition: write down what is said, in the language it is said in."""

from __future__ import annotations

from shoal.data.clip import Row
from shoal.tasks.base import Task


class Asr(Task):
    """Recognition, scored by word error rate; by character error rate where a script has no spaces."""

    def target(self, row: Row) -> str:
        """The transcript."""
        return self.transcript(row)
