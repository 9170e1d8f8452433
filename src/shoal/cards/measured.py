"""The scores of one system, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.schema import DataInfo, Scores, SystemScores


@dataclass(frozen=True)
class Measured:
    """One system of a document."""

    scores: Scores
    system: SystemScores

    @property
    def task(self) -> str:
        """What was asked."""
        return self.scores.task

    @property
    def kind(self) -> str:
        """Which of Shoal's own tasks it is or was made from."""
        return self.scores.task_kind

    @property
    def data(self) -> DataInfo:
        """The clips."""
        return self.scores.data

    @property
    def baseline(self) -> SystemScores | None:
        """What it is compared with; None if it is the first system itself."""
        first = self.scores.systems[0]
        return None if first is self.system else first
