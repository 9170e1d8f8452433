"""What is required of a checkpoint, and how it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from pydantic import Field

from shoal.settings import SHARE, Settings, Share

if TYPE_CHECKING:
    from shoal.validation.requirements import Requirement

REQUIRED = Parameter(group=Group("Requirements", sort_key=3))


class ScoreRequirements(Settings):
    """What is required of scores."""

    max_wer: Annotated[Share | None, REQUIRED, SHARE] = None
    """Highest WER of speech recognition, such as 10%."""
    max_wer_increase: Annotated[Share | None, REQUIRED, SHARE] = None
    """Highest increase of the WER of speech recognition relative to the baseline's, such as 5%."""
    max_group_increase: Annotated[Share | None, REQUIRED, SHARE] = None
    """Highest increase of the error rate of any group of clips, relative to its own baseline, such as 15%."""
    min_bleu: Annotated[str | None, REQUIRED, Parameter(metavar="BLEU")] = None
    """Lowest BLEU of translation, such as 25."""
    max_bleu_drop: Annotated[str | None, REQUIRED, Parameter(metavar="DROP")] = None
    """Largest drop of BLEU from the baseline's, in points, such as 1.5, or relative, such as 5%."""
    min_chrf: Annotated[str | None, REQUIRED, Parameter(metavar="CHRF")] = None
    """Lowest chrF of translation, such as 50."""
    min_accuracy: Annotated[Share | None, REQUIRED, SHARE] = None
    """Lowest accuracy of labels, such as 80%."""
    min_uar: Annotated[Share | None, REQUIRED, SHARE] = None
    """Lowest unweighted average recall (UAR) of labels, such as 60%."""
    require: Annotated[tuple[str, ...], REQUIRED, Parameter(metavar="REQUIREMENT")] = ()
    """Requirement on any score, or on its increase or drop, such as "macro-F1>=0.5" or "CER increase<=2%".
    Repeatable."""
    confident: Annotated[bool, REQUIRED, Parameter(negative="--point")] = True
    """Whether the bound of the interval must meet a requirement, too (--confident), or the point value is enough
    (--point)."""

    def listed(self) -> list[Requirement]:
        """All that was given.

        Raises:
            UsageError: one cannot be read.
        """
        from shoal.validation import requirement_syntax as syntax

        limits = ((make, getattr(self, name, None)) for name, make in syntax.OPTIONS.items())
        return [*(make(limit) for make, limit in limits if limit is not None), *map(syntax.parse, self.require)]


class ValidateSettings(ScoreRequirements):
    """What is required of a checkpoint, and how it is judged."""

    max_latency_ratio: Annotated[float | None, REQUIRED, Parameter(metavar="RATIO")] = Field(default=None, ge=0)
    """Highest ratio of the time to the unpruned model's in a bench, such as 0.8."""
    min_speedup: Annotated[float | None, REQUIRED, Parameter(metavar="FACTOR")] = Field(default=None, ge=0)
    """Lowest speedup over the unpruned model in a bench, such as 1.25."""
    max_size: Annotated[str | None, REQUIRED, Parameter(metavar="BYTES")] = None
    """Largest size of the weights, such as 300MB."""
    require_task: Annotated[tuple[str, ...], REQUIRED, Parameter(metavar="TASK")] = ()
    """Task that must have been scored, whatever the result. Repeatable."""

    def listed(self) -> list[Requirement]:
        """All that was given, results for tasks too.

        Raises:
            UsageError: one cannot be read.
        """
        from shoal.validation import requirement_syntax as syntax

        return [*super().listed(), *map(syntax.require_task, self.require_task)]
