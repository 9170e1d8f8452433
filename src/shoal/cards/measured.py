"""The scores of one system, whatever the task: every measure by its name, the headline first."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.schema import DataInfo, GroupScore, MeasuredScore, Scores, SystemScores

RECOGNITION = "asr"


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
        return str(self.scores.task_settings.get("kind") or self.task)

    @property
    def data(self) -> DataInfo:
        """The clips."""
        return self.scores.data

    @property
    def baseline(self) -> SystemScores | None:
        """What it is compared with; None if it is the first system itself."""
        first = self.scores.systems[0]
        return None if first is self.system else first

    def measures(self, system: SystemScores | None = None) -> dict[str, MeasuredScore]:
        """Name → score of this system, or of another in the same document."""
        system = system or self.system
        if system.measures and self.kind != RECOGNITION:
            return dict(system.measures)
        rates = {
            "WER": self._rate(system.wer, system.delta_wer),
            "CER": self._rate(system.cer, None),
        }
        if system.compound_wer is not None:
            rates["compound WER"] = self._rate(system.compound_wer, None)
        return rates | system.measures

    def headline(self, group: GroupScore) -> tuple[str, MeasuredScore] | None:
        """What a group of clips is judged by; None where the document has only edits of a task not so scored."""
        if group.measures:
            return next(iter(group.measures.items()))
        if self.system.measures and self.kind != RECOGNITION:
            return None
        return "WER", self._rate(group.wer, group.delta)

    def _rate(self, value: object, delta: object) -> MeasuredScore:
        return MeasuredScore.model_validate(
            {
                "value": value,
                "delta": delta,
                "higher_is_better": False,
                "fraction": True,
                "signature": self.scores.scorer,
            }
        )
